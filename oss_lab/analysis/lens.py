"""The logit lens: what each layer would predict if it were the last.

The last norm and the unembedding are laid on the residual stream behind every layer ("interpreting
GPT: the logit lens", nostalgebraist, 2020). Earlier layers were not trained to be read so: a token
that shows early was there to be read, one that does not may still be there in another form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.derived import layer_logits
from oss_lab.hooks.selection import is_integer

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

ROWS = 64  # positions whose logits are held in float64 at once


@dataclass(frozen=True, repr=False)
class Lens:
    """The prediction behind each position, layer by layer. All in nats.

    Attributes:
        targets: the id that is followed at each position.
        top_ids, top_logprobs: the likeliest next tokens, best first.
        rank: how many ids are likelier than the target.
        logprob: of the target.
        entropy: of the layer's prediction.
        divergence: Kullback-Leibler, of the layer's prediction from the model's own: the nats that
            are lost by taking the layer's for it.
    """

    positions: tuple[int, ...]
    targets: tuple[int, ...]
    top_ids: Int[Tensor, "layer position rank"]
    top_logprobs: Float[Tensor, "layer position rank"]
    rank: Int[Tensor, "layer position"]
    logprob: Float[Tensor, "layer position"]
    entropy: Float[Tensor, "layer position"]
    divergence: Float[Tensor, "layer position"]

    def __repr__(self) -> str:
        layers, positions = self.rank.shape
        return f"<Lens of {layers} layers at {positions} positions>"


@torch.no_grad()
def lens(
    lab: "Lab",
    of: "Prompt",
    positions: Sequence[int] | None = None,
    target: int | None = None,
    *,
    top: int = 5,
) -> Lens:
    """Every layer's prediction behind these positions.

    Args:
        positions: None for all, but for the last where it has no target.
        target: the id that is followed at every position; by default the token that comes next.
        top: how many of the likeliest tokens are kept.

    Raises:
        LabError: there is no such position or token, or the last position has no target.
    """
    tokens = lab.tokens_of(of)
    if positions is None:
        positions = range(len(tokens) - (target is None))
    positions = tuple(positions)
    targets = targets_of(lab, tokens, positions, target)
    if not is_integer(top) or not 1 <= top <= lab.config.vocab_size:
        raise LabError(f"top is {top!r}; it must be from 1 to {lab.config.vocab_size}")
    trace = lab.trace(tokens, ["resid.post", "out.logits"], positions=positions)
    layers = range(lab.config.num_hidden_layers)
    own, followed = trace.tensor("out.logits"), torch.tensor(targets)
    read = [
        [
            reading(
                layer_logits(lab.model, layer, resid.to(lab.model.device)[None])[0].cpu(),
                own[first : first + ROWS],
                followed[first : first + ROWS],
                top,
            )
            for first, resid in zip(
                range(0, len(positions), ROWS),
                trace.tensor("resid.post", layer).split(ROWS),
                strict=True,
            )
        ]
        for layer in layers
    ]
    parts = [
        torch.stack([torch.cat([piece[n] for piece in layer]) for layer in read]) for n in range(6)
    ]
    return Lens(positions, targets, *parts)


def targets_of(
    lab: "Lab", tokens: Sequence[int], positions: Sequence[int], target: int | None
) -> tuple[int, ...]:
    """The id that is followed at each position.

    Raises:
        LabError: there is none.
    """
    if not positions:
        raise LabError("no position is left to look at; name a target for the last one")
    for position in positions:
        check_index("position", position, len(tokens))
    if target is not None:
        check_tokens([target], lab.config, name="the target")
        return (target,) * len(positions)
    if len(tokens) - 1 in positions:
        raise LabError(f"no token comes behind position {len(tokens) - 1}; name a target")
    return tuple(tokens[position + 1] for position in positions)


def reading(
    logits: Float[Tensor, "position vocab"],
    own: Float[Tensor, "position vocab"],
    targets: Int[Tensor, "position"],
    top: int,
) -> tuple[Tensor, ...]:
    """The fields of `Lens` from `top_ids` on, for one layer; computed in float64."""
    logprobs, final = (x.double().log_softmax(-1) for x in (logits, own))
    best = logprobs.topk(top)
    target = logprobs.gather(-1, targets[:, None])
    likelier = (logprobs > target).sum(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    divergence = (final.exp() * (final - logprobs)).sum(-1)
    told = (best.values, likelier, target[:, 0], entropy, divergence)
    return (best.indices, *(x.float() if x.is_floating_point() else x for x in told))
