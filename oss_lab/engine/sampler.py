"""From logits to the next token of each row: temperature, filters and a random number.

A token is drawn by inverse CDF over the tokens from likely to unlikely, with one uniform number per
token. All sums are float64. On a CPU, rows are sampled one by one with as little sorting as
possible (`Buckets`); other devices sort all rows at once. Both keep the same tokens.

The caller decides which ids may be generated, and sets the logits of the others to -inf.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.buckets import Buckets
from oss_lab.engine.sampling import Draw, Sampling
from oss_lab.errors import LabError


@torch.no_grad()
def sample(
    logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[Draw]
) -> list[int]:
    """The next token id of every row, by its own sampling and from its own random numbers.

    A row at temperature 0 takes no random number, and every other row takes one.

    Raises:
        LabError: the logits of a row hold NaN or +inf, or nothing but -inf.
    """
    if logits.device.type != "cpu":
        return _sample_together(logits, samplings, draws)
    if logits.dtype != torch.float64:
        logits = logits.float()  # NumPy does not know bfloat16
    _check_peaks(logits.amax(-1).tolist())  # NaN where a row holds one
    is_greedy = [sampling.temperature == 0 for sampling in samplings]
    ids = logits.argmax(-1).tolist() if any(is_greedy) else [0] * len(samplings)
    for n, row in enumerate(logits.detach().numpy()):
        if not is_greedy[n]:
            ids[n] = _sample_buckets(_weigh(row, samplings[n]), samplings[n], draws[n])
    return ids


@torch.no_grad()
def kept(
    logits: Float[Tensor, "vocab"], sampling: Sampling
) -> tuple[Int[Tensor, "kept"], Float[Tensor, "kept"]]:
    """The ids that the filters leave, likeliest first, and their probabilities (float64, sum 1).

    Raises:
        LabError: the logits hold NaN or +inf, or nothing but -inf.
    """
    _check_peaks([logits.amax().item()])
    if sampling.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return best, torch.ones_like(best, dtype=torch.float64)
    weights, ids, _, counts = _sort_and_filter(logits.unsqueeze(0), [sampling])
    count = int(counts)
    left = weights[0, :count]
    return ids[0, :count], left / left.sum()


def _check_peaks(peaks: list[float]) -> None:
    """Raise LabError if the largest logit of a row shows that nothing can be drawn from it."""
    for row, peak in enumerate(peaks):
        if not math.isfinite(peak):
            whose = "the logits" if len(peaks) == 1 else f"the logits of row {row}"
            fault = {math.inf: "hold +inf", -math.inf: "are all -inf"}.get(peak, "hold NaN")
            raise LabError(f"{whose} {fault}; the weights or an intervention broke them")


def _weigh(logits: Float[np.ndarray, "vocab"], sampling: Sampling) -> Float[np.ndarray, "vocab"]:
    """Probabilities before any filter, relative to the largest, which is 1; float64."""
    with np.errstate(over="ignore"):  # a small temperature may take a weight to 0
        # Relative to the likeliest, so that no temperature above 0 can overflow all of them.
        weights = np.subtract(logits, logits.max(), dtype=np.float64)
        weights /= sampling.temperature
    return np.exp(weights, out=weights)


def _sample_buckets(weights: Float[np.ndarray, "vocab"], sampling: Sampling, draw: Draw) -> int:
    """One token from weights of which the largest is 1."""
    buckets = Buckets(weights)
    # Every filter leaves a prefix of the same order, so the mass that is left says which.
    left = buckets.mass
    if sampling.top_k is not None and sampling.top_k < len(weights):
        left = buckets.sum_first(sampling.top_k)
    if sampling.top_p < 1:
        left = buckets.find_mass(sampling.top_p * left)
    if sampling.min_p > 0:
        left = min(left, buckets.sum_heaviest(sampling.min_p))
    return buckets.find_token(draw.uniform() * left)


def _sample_together(
    logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[Draw]
) -> list[int]:
    """What `sample` gives, on any device, with one transfer of its results."""
    ids = logits.argmax(-1)
    drawn = [n for n, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        numbers = torch.tensor([[draws[n].uniform()] for n in drawn], dtype=torch.float64)
        _, order, masses, counts = _sort_and_filter(logits[drawn], [samplings[n] for n in drawn])
        left = masses.gather(-1, counts - 1)
        places = torch.searchsorted(masses, numbers.to(left.device) * left, right=True)
        # The cumulative sums of a GPU may fall by a last bit, so a place could be past the end.
        ids[drawn] = order.gather(-1, torch.minimum(places, counts - 1)).squeeze(-1)
    # float64 holds every id.
    chosen, peaks = torch.stack([ids.double(), logits.amax(-1).double()]).tolist()
    _check_peaks(peaks)
    return [int(id) for id in chosen]


def _sort_and_filter(
    logits: Float[Tensor, "row vocab"],
    samplings: Sequence[Sampling],
) -> tuple[
    Float[Tensor, "row vocab"],
    Int[Tensor, "row vocab"],
    Float[Tensor, "row vocab"],
    Int[Tensor, "row 1"],
]:
    """Every row from likely to unlikely: weights (the largest is 1), ids, cumulative weights, and
    how many tokens the filters leave."""
    vocab = logits.shape[-1]
    numbers = [
        (each.temperature, min(each.top_k or vocab, vocab), each.top_p, each.min_p)
        for each in samplings
    ]
    columns = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
    temperature, top_k, top_p, min_p = columns.split(1, dim=-1)
    values = logits.double()
    relative = (values - values.amax(-1, keepdim=True)) / temperature
    weights, ids = relative.exp().sort(descending=True, stable=True)
    masses = weights.cumsum(-1)
    counts = top_k.long()
    target = top_p * masses.gather(-1, counts - 1)
    # The token that reaches top_p is kept, so there always is one.
    reach = torch.searchsorted(masses, target) + 1
    counts = torch.where(top_p < 1, torch.minimum(counts, reach), counts)
    heavy = ((weights >= min_p) & (weights > 0)).sum(-1, keepdim=True)
    # No place to gather from may be out of bounds, even for rows of NaN.
    return weights, ids, masses, torch.minimum(counts, heavy).clamp(min=1)
