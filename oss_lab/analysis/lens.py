"""The logit lens: what each layer would predict if it were the last.

The final norm and unembedding are applied to the residual stream after every layer ("interpreting
GPT: the logit lens", nostalgebraist, 2020). Earlier layers were not trained to be read in this way.
A token that appears early is encoded in the residual stream. One that does not appear may still be
encoded there, in another form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.derived import layer_logits
from oss_lab.hooks.selection import Integers, is_integer, to_integers

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

ROWS = 64  # positions whose float64 logits are in memory at a time


@dataclass(frozen=True, repr=False)
class Lens:
    """Each layer's prediction after each position. All quantities are in nats.

    Attributes:
        targets: the token id to compare at each position.
        top_ids, top_logprobs: the most likely next tokens, most likely first.
        rank: how many ids are more likely than the target.
        logprob: of the target.
        entropy: of the layer's prediction.
        divergence: Kullback-Leibler divergence of the layer's prediction from the model's: the nats
            lost by using the layer's prediction instead of the model's.
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


@check_arguments
@torch.no_grad()
def lens(
    lab: "Lab",
    of: "Prompt",
    positions: Integers | None = None,
    target: int | None = None,
    *,
    top: int = 5,
) -> Lens:
    """Every layer's prediction after these positions.

    Args:
        positions: None for all; without `target` the last position is left out.
        target: the token id to compare at every position; by default the token that follows.
        top: how many of the most likely tokens to return.

    Raises:
        LabError: a position or token does not exist, or the last position has no target.
    """
    tokens = lab.tokens_of(of)
    positions = to_integers("positions", positions)
    if positions is None:
        positions = tuple(range(len(tokens) - (target is None)))
    targets = choose_targets(lab, tokens, positions, target)
    if not is_integer(top) or not 1 <= top <= lab.config.vocab_size:
        raise LabError(f"top is {top!r}; it must be from 1 to {lab.config.vocab_size}")
    trace = lab.trace(tokens, ["resid.post", "out.logits"], positions=positions)
    layers = range(lab.config.num_hidden_layers)
    final, target_ids = trace.tensor("out.logits"), torch.tensor(targets)
    read = [
        [
            read_layer(
                layer_logits(lab.model, layer, resid.to(lab.model.device)[None])[0].cpu(),
                final[first : first + ROWS],
                target_ids[first : first + ROWS],
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


def choose_targets(
    lab: "Lab", tokens: Sequence[int], positions: Sequence[int], target: int | None
) -> tuple[int, ...]:
    """The token id to compare at each position.

    Raises:
        LabError: there are no positions, or one has no target.
    """
    if not positions:
        raise LabError("there are no positions to read: pass a target for the last one")
    for position in positions:
        check_index("position", position, len(tokens))
    if target is not None:
        check_tokens([target], lab.config, name="the target")
        return (target,) * len(positions)
    if len(tokens) - 1 in positions:
        raise LabError(f"no token follows position {len(tokens) - 1}: pass a target")
    return tuple(tokens[position + 1] for position in positions)


def read_layer(
    logits: Float[Tensor, "position vocab"],
    final: Float[Tensor, "position vocab"],
    targets: Int[Tensor, "position"],
    top: int,
) -> tuple[Tensor, ...]:
    """The fields of `Lens` from `top_ids` on, for one layer; computed in float64."""
    logprobs, final = (x.double().log_softmax(-1) for x in (logits, final))
    best = logprobs.topk(top)
    target = logprobs.gather(-1, targets[:, None])
    rank = (logprobs > target).sum(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    divergence = (final.exp() * (final - logprobs)).sum(-1)
    found = (best.values, rank, target[:, 0], entropy, divergence)
    return (best.indices, *(x.float() if x.is_floating_point() else x for x in found))
