"""The next token of every row: an id that may follow, and how likely the model found it."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.engine.row import BatchRow, RowError
from oss_lab.engine.sampling import RandomStream, Sampling
from oss_lab.errors import LabError
from oss_lab.record.token import Token

Sample = Callable[[Tensor, Sequence[Sampling], Sequence[RandomStream]], list[int]]
"""`sampler.sample`, or another function of the same arguments."""

Alternatives = tuple[tuple[int, float], ...]


def choose_tokens(
    rows: Sequence[BatchRow],
    logits: Float[Tensor, "row vocab"],
    barrier: Float[Tensor, "vocab"] | None,
    sample: Sample,
) -> list[Token]:
    """Sample the next token of every row, with its log-probability.

    Args:
        barrier: 0 for each id that may be generated, -inf for the others; None allows all.

    Raises:
        RowError: a constraint failed, or `sample` returned an id that it does not allow.
        LabError: the logits are not finite.
    """
    wide = logits.float()
    allowed = wide if barrier is None else wide + barrier
    masks = find_masks(rows)
    if masks:
        allowed = allowed.clone() if allowed is wide else allowed
        for n, mask in masks.items():
            allowed[n].masked_fill_(~mask.to(wide.device), -torch.inf)
    chosen = sample(
        allowed, [row.request.sampling for row in rows], [row.random_stream for row in rows]
    )
    for n, mask in masks.items():
        if not mask[chosen[n]]:
            raise RowError(
                rows[n],
                f"id {chosen[n]} was sampled although its logit is -inf; a sampler must leave"
                " such ids out",
            )
    ids = [row.forced[0] if row.forced else id for row, id in zip(rows, chosen, strict=True)]
    logprobs, alternatives = score(wide, ids, max(row.request.alternatives for row in rows))
    for row, logprob in zip(rows, logprobs, strict=True):
        # `sample` checks only the ids that may be generated; another logit may be NaN.
        if math.isnan(logprob) or (logprob == -math.inf and not row.forced):
            raise LabError(
                "the logits contain NaN or +inf; the weights or an intervention caused it"
            )
    return [
        Token(ids[n], logprobs[n], alternatives[n][: row.request.alternatives], bool(row.forced))
        for n, row in enumerate(rows)
    ]


def score(
    logits: Float[Tensor, "row vocab"], ids: Sequence[int], count: int
) -> tuple[list[float], list[Alternatives]]:
    """The log-probability of each row's id, and the row's `count` most likely ids with theirs."""
    scores = logits.log_softmax(-1)
    if scores.device.type == "cpu":  # indexing an array costs a fifth of a gather
        logprobs = scores.numpy()[range(len(ids)), ids].tolist()
    else:
        logprobs = scores.gather(-1, torch.tensor(ids, device=scores.device)[:, None])
        logprobs = logprobs[:, 0].tolist()
    if not count:
        return logprobs, [()] * len(ids)
    best = scores.topk(count)
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return logprobs, [tuple(zip(*each, strict=True)) for each in ranked]


def find_masks(rows: Sequence[BatchRow]) -> dict[int, Bool[Tensor, "vocab"]]:
    """The ids that each row with a constraint may sample, by the row's index."""
    found = {}
    for n, row in enumerate(rows):
        mask = None if row.forced else row.find_allowed()
        if mask is not None:
            found[n] = mask
    return found
