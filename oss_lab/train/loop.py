"""The training loop: Muon and AdamW, a cosine, a fading balance loss, MXFP4 at the end.

The run is fixed by its `Recipe`: batch and weights follow from the seed, so that the same versions
on the same machine give the same losses, and a run goes on from its last checkpoint as if it had
not stopped. What each step did is a line of `log.jsonl`.
"""

import functools
import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oss_lab.cache import KVCache
from oss_lab.config import GPT_OSS_NANO, ModelConfig
from oss_lab.errors import LabError
from oss_lab.model import Transformer
from oss_lab.tokenizer import load_vocabulary
from oss_lab.train.balance import DECAY, RouterWatch, busiest, even_share
from oss_lab.train.data import Group, groups_at
from oss_lab.train.machine import keep_machine
from oss_lab.train.quantised import RoundedExperts
from oss_lab.train.state import load_state, load_weights, save_state

STATE = "state.safetensors"
CLIP = 1.0  # the largest gradient norm of an update


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights.

    Attributes:
        mix: what is drawn, of `oss_lab.train.tasks.mix.MIXES`.
        tokens: about how many tokens a step reads, padding included and openings not.
        learning_rate, adam_rate: the peaks for what Muon and what AdamW trains.
        balance: weight of the balance loss at the start; it fades linearly to a tenth.
        rounded: the share of the steps, at the end, that trains through MXFP4 rounding.
    """

    model: ModelConfig = field(default_factory=lambda: GPT_OSS_NANO)
    mix: str = "broad"
    seed: int = 0
    steps: int = 3600
    tokens: int = 9000
    learning_rate: float = 5e-3
    adam_rate: float = 3e-3
    warm_up: int = 50
    weight_decay: float = 0.05
    balance: float = 0.02
    rounded: float = 0.15


@dataclass(frozen=True)
class Step:
    """One line of the log.

    Attributes:
        loss: nats per learnt token.
        balance: the balance loss, 1 when all experts are equally busy.
        load: the busiest expert's share over an even one, averaged over the layers.
        groups: the loss by `setting/task/effort`.
    """

    step: int
    loss: float
    balance: float
    load: float
    learnt_tokens: int
    gradient_norm: float
    seconds: float
    groups: dict[str, float]


def initialise(model: Transformer, seed: int) -> None:
    """Normal matrices of 1/sqrt(inputs), smaller with depth where they write to the residual;
    norm scales one, biases and sinks zero."""
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.scale"):
            continue
        if parameter.dim() < 2 or name.endswith("_bias"):
            nn.init.zeros_(parameter)
            continue
        std = 0.5 if name == "embedding.weight" else parameter.shape[-1] ** -0.5
        if "attn.out" in name or "mlp2_weight" in name:
            std /= depth
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)


def rate(recipe: Recipe, step: int) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine down to 2 %."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def train(
    recipe: Recipe,
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    save_every: int = 100,
    threads: int | None = None,
) -> Iterator[Step]:
    """Train, or go on training, in `folder`; yields each step. For the model see `trained`.

    Groups are worked on by `threads` CPU threads, by default one for each processor.

    `folder` gets `recipe.json`, `machine.json`, `log.jsonl` and, every `save_every` steps,
    `state.safetensors`.

    Raises:
        LabError: the folder holds a run of another recipe.
    """
    threads = threads or os.cpu_count() or 1
    folder.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, folder)
    encoding = load_vocabulary("nano")
    model = Transformer(recipe.model, RoundedExperts)
    initialise(model, recipe.seed)
    model.to(device)
    optimizers = make_optimizers(model, recipe)
    share = even_share(recipe.model).to(device)
    state, log = folder / STATE, folder / "log.jsonl"
    first = load_state(state, model, optimizers, share) if state.exists() else 0
    if not first:
        keep_machine(folder, threads)
    lines = log.read_text().splitlines()[:first] if first else []
    log.write_text("".join(line + "\n" for line in lines))
    workers = ThreadPoolExecutor(
        threads if model.device.type == "cpu" else 1,
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    for step in range(first, recipe.steps):
        began = time.perf_counter()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * rate(recipe, step)
        if step >= recipe.steps * (1 - recipe.rounded):
            round_experts(model)
        fade = recipe.balance * (1 - 0.9 * step / recipe.steps)
        groups = groups_at(step, recipe.seed, recipe.tokens, encoding, recipe.mix)
        measured = train_step(model, optimizers, groups, share, fade, workers)
        done = Step(step, **measured, seconds=round(time.perf_counter() - began, 3))
        with log.open("a") as appended:
            appended.write(json.dumps(asdict(done)) + "\n")
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            save_state(state, model, optimizers, share, step + 1)
        yield done


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `recipe.json`; refuse a folder with a state that another recipe made."""
    file, text = folder / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n"
    if (folder / STATE).exists() and not (file.exists() and file.read_text() == text):
        raise LabError(
            f"{folder} holds a run of another recipe; choose another folder, or the options that"
            f" {file} records"
        )
    file.write_text(text)


def trained(recipe: Recipe, folder: Path) -> Transformer:
    """The model as last saved in `folder`, on the CPU."""
    model = Transformer(recipe.model, RoundedExperts)
    load_weights(folder / STATE, model)
    return model.eval()


def make_optimizers(model: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices between activations, one for each layer; AdamW for
    embedding, unembedding, routers, and the vectors, which do not decay."""
    matrices: dict[str, list[nn.Parameter]] = {}
    tables, vectors = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or name.endswith("_bias"):
            vectors.append(parameter)
        elif "embedding" in name or ".gate." in name:
            tables.append(parameter)
        else:
            layer = name.split(".")[1]
            matrices.setdefault(layer, []).append(parameter)
    groups = [
        {"params": tables, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    muon = functools.partial(
        torch.optim.Muon,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(groups, lr=recipe.adam_rate, betas=(0.9, 0.98), fused=True)
    return [*map(muon, matrices.values()), adamw]


@dataclass(frozen=True)
class Learnt:
    """What one group gives to a step: summed nats, learnt tokens, gradients by parameter."""

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
    learnt = sum(int(group.learnt.sum()) for group in groups)
    weight = balance_weight / len(groups)
    results = list(
        workers.map(lambda group: learn(model, group, share, 1 / learnt, weight), groups)
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
        "loss": sum(each.nats for each in results) / learnt,
        "balance": round(sum(each.balance for each in results) / len(results), 4),
        "load": round(busiest(share), 3),
        "learnt_tokens": learnt,
        "gradient_norm": round(norm, 4),
        "groups": losses_by_name(groups, results),
    }


def losses_by_name(groups: Sequence[Group], results: Sequence[Learnt]) -> dict[str, float]:
    """Nats per learnt token of all groups of one `setting/task/effort`."""
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
) -> Learnt:
    """The gradients of one group; its opening is read once for all rows."""
    opening, inputs, targets, learnt, lengths = (
        tensor.to(model.device)
        for tensor in (group.opening, group.inputs, group.targets, group.learnt, group.lengths)
    )
    watch = RouterWatch(model.config.num_hidden_layers)
    cache = KVCache(model.config)
    model(opening, cache, last=0, taps=watch.taps)
    logits = model(inputs, cache.fork(batch=len(inputs)), taps=watch.taps)
    nats = F.cross_entropy(logits[learnt].float(), targets[learnt], reduction="sum")
    written = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
    balance, chosen = watch.balance([torch.ones_like(opening, dtype=torch.bool), written], share)
    loss = nats_weight * nats + balance_weight * balance
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return Learnt(nats.item(), int(group.learnt.sum()), balance.item(), chosen, gradients)


def round_experts(model: Transformer) -> None:
    """From now on the forward sees every expert as MXFP4 would store it now."""
    for module in model.modules():
        if isinstance(module, RoundedExperts):
            module.round()
