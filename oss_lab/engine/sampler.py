"""Samples the next token of each row from its logits: temperature, filters and a random number.

A token is drawn by inverse CDF: tokens are ordered by probability, and one uniform random number
selects a place in their cumulative sum. All sums are float64. On a CPU, rows are sampled one at a
time with as little sorting as possible (`Buckets`). Other devices sort all rows together. Both ways
keep the same tokens.

The caller decides which ids may be generated, and sets the logits of the others to -inf.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.buckets import Buckets
from oss_lab.engine.sampling import RandomStream, Sampling
from oss_lab.errors import LabError


@torch.no_grad()
def sample(
    logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[RandomStream]
) -> list[int]:
    """Sample the next token id of each row, with its own settings and random numbers.

    A row at temperature 0 uses no random number; every other row uses exactly one.

    Raises:
        LabError: the logits of a row contain NaN or +inf, or are all -inf.
    """
    if logits.device.type != "cpu":
        return _sample_together(logits, samplings, draws)
    if logits.dtype != torch.float64:
        logits = logits.float()  # NumPy has no bfloat16
    rows = logits.detach().numpy()
    _check_peaks(rows.max(-1).tolist())  # NaN if the row contains one
    is_greedy = [sampling.temperature == 0 for sampling in samplings]
    ids = rows.argmax(-1).tolist() if any(is_greedy) else [0] * len(samplings)
    for n, row in enumerate(rows):
        if not is_greedy[n]:
            ids[n] = _sample_buckets(_weigh(row, samplings[n]), samplings[n], draws[n])
    return ids


@torch.no_grad()
def filter_tokens(
    logits: Float[Tensor, "vocab"], sampling: Sampling
) -> tuple[Int[Tensor, "kept"], Float[Tensor, "kept"]]:
    """The ids that pass the filters, most likely first, and their probabilities (float64, sum 1).

    Raises:
        LabError: the logits contain NaN or +inf, or are all -inf.
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
    """Raise LabError if a row's largest logit is not finite."""
    for row, peak in enumerate(peaks):
        if not math.isfinite(peak):
            whose = "the logits" if len(peaks) == 1 else f"the logits of row {row}"
            fault = {math.inf: "contain +inf", -math.inf: "are all -inf"}.get(peak, "contain NaN")
            raise LabError(f"{whose} {fault}; the weights or an intervention caused it")


def _weigh(logits: Float[np.ndarray, "vocab"], sampling: Sampling) -> Float[np.ndarray, "vocab"]:
    """Unfiltered probabilities divided by the largest one; float64."""
    with np.errstate(over="ignore"):  # with a small temperature, a weight may become 0
        # Subtracting the maximum keeps the largest weight at 1 for every temperature above 0.
        weights = np.subtract(logits, logits.max(), dtype=np.float64)
        weights /= sampling.temperature
    return np.exp(weights, out=weights)


def _sample_buckets(
    weights: Float[np.ndarray, "vocab"], sampling: Sampling, draw: RandomStream
) -> int:
    """Sample one token from weights whose largest is 1."""
    buckets = Buckets(weights)
    # Every filter keeps a prefix of the same order, so its mass identifies the prefix.
    left = buckets.mass
    if sampling.top_k is not None and sampling.top_k < len(weights):
        left = buckets.sum_first(sampling.top_k)
    if sampling.top_p < 1:
        left = buckets.find_mass(sampling.top_p * left)
    if sampling.min_p > 0:
        left = min(left, buckets.sum_heaviest(sampling.min_p))
    return buckets.find_token(draw.uniform() * left)


def _sample_together(
    logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[RandomStream]
) -> list[int]:
    """Same as `sample`, on any device, with one transfer of the results to the CPU."""
    ids = logits.argmax(-1)
    drawn = [n for n, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        numbers = torch.tensor([[draws[n].uniform()] for n in drawn], dtype=torch.float64)
        _, order, masses, counts = _sort_and_filter(logits[drawn], [samplings[n] for n in drawn])
        left = masses.gather(-1, counts - 1)
        places = torch.searchsorted(masses, numbers.to(left.device) * left, right=True)
        # Cumulative sums on a GPU may decrease by one bit, so a place could be past the end.
        ids[drawn] = order.gather(-1, torch.minimum(places, counts - 1)).squeeze(-1)
    # float64 represents every id exactly.
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
    """Sort each row, most likely first, and count the tokens that pass the filters.

    Returns weights (the largest is 1), ids, cumulative weights and counts.
    """
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
    # The token that reaches top_p is kept too, so at least one remains.
    reach = torch.searchsorted(masses, target) + 1
    counts = torch.where(top_p < 1, torch.minimum(counts, reach), counts)
    heavy = ((weights >= min_p) & (weights > 0)).sum(-1, keepdim=True)
    # At least 1, to keep the indices in bounds even for rows of NaN.
    return weights, ids, masses, torch.minimum(counts, heavy).clamp(min=1)
