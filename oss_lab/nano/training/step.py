"""One step of training: the gradients of its groups, side by side, and an update from their sum."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oss_lab.engine.cache import KVCache
from oss_lab.model import Transformer
from oss_lab.nano.training.balance import DECAY, RouterWatch, busiest
from oss_lab.nano.training.data import Group

CLIP = 1.0  # the largest gradient norm of an update


@dataclass(frozen=True)
class Learned:
    """What one group gives to a step: summed nats, learned tokens, gradients by parameter."""

    nats: float
    tokens: int
    balance: float
    chosen: Float[Tensor, "layer expert"]
    gradients: Sequence[Tensor | None]


def train_step(
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    groups: list[Group],
    share: Float[Tensor, "layer expert"],
    balance_weight: float,
    workers: Executor,
) -> dict[str, Any]:
    """One update from all groups; returns what `Step` records of it.

    Groups are worked on side by side, one thread each, and summed in their order: the result does
    not depend on how many threads there are. `share` is updated in place.
    """
    learned = sum(int(group.learned.sum()) for group in groups)
    weight = balance_weight / len(groups)
    results = list(
        workers.map(lambda group: learn(model, group, share, 1 / learned, weight), groups)
    )
    for parameter, *gradients in zip(
        model.parameters(), *(result.gradients for result in results), strict=True
    ):
        given = [gradient for gradient in gradients if gradient is not None]
        parameter.grad = functools.reduce(torch.add, given) if given else None
    share.mul_(DECAY).add_((1 - DECAY) * torch.stack([each.chosen for each in results]).mean(0))
    # On one thread as well: a sum over several depends on how many.
    norm = workers.submit(nn.utils.clip_grad_norm_, model.parameters(), CLIP).result().item()
    list(workers.map(lambda optimizer: optimizer.step(), optimizers))
    return {
        "loss": sum(each.nats for each in results) / learned,
        "balance": round(sum(each.balance for each in results) / len(results), 4),
        "load": round(busiest(share), 3),
        "learnt_tokens": learned,
        "gradient_norm": round(norm, 4),
        "groups": losses_by_name(groups, results),
    }


def losses_by_name(groups: Sequence[Group], results: Sequence[Learned]) -> dict[str, float]:
    """Nats per learned token of all groups of one `setting/task/effort`."""
    nats, tokens = defaultdict[str, float](float), Counter[str]()
    for group, result in zip(groups, results, strict=True):
        name = f"{group.setting}/{group.task}/{group.effort}"
        nats[name] += result.nats
        tokens[name] += result.tokens
    return {name: round(nats[name] / tokens[name], 4) for name in nats}


def learn(
    model: Transformer,
    group: Group,
    share: Float[Tensor, "layer expert"],
    nats_weight: float,
    balance_weight: float,
) -> Learned:
    """The gradients of one group; its opening is read once for all rows."""
    opening, inputs, targets, learned, lengths = (
        tensor.to(model.device)
        for tensor in (group.opening, group.inputs, group.targets, group.learned, group.lengths)
    )
    watch = RouterWatch(model.config.num_hidden_layers)
    cache = KVCache(model.config)
    model(opening, cache, last=0, hooks=watch)
    logits = model(inputs, cache.fork(batch=len(inputs)), hooks=watch)
    nats = F.cross_entropy(logits[learned].float(), targets[learned], reduction="sum")
    written = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
    balance, chosen = watch.balance([torch.ones_like(opening, dtype=torch.bool), written], share)
    loss = nats_weight * nats + balance_weight * balance
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return Learned(nats.item(), int(group.learned.sum()), balance.item(), chosen, gradients)
