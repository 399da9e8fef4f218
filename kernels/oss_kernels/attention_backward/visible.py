"""Which keys a query sees, and which queries see a key, as one number per position."""

import torch
from jaxtyping import Int, Int32
from torch import Tensor


def find_first_keys(
    batch: int,
    seq: int,
    window: int | None,
    starts: Int[Tensor, "#batch seq"] | None,
    device: torch.device,
) -> Int32[Tensor, "batch seq"]:
    """The first key that each query sees. The last is its own; after that, it sees none."""
    query = torch.arange(seq, device=device)
    first = query.new_zeros(seq) if window is None else (query - window + 1).clamp(min=0)
    if starts is not None:
        first = torch.maximum(first, starts)
    return first.expand(batch, seq).int().contiguous()


def find_last_queries(first: Int32[Tensor, "batch seq"]) -> Int32[Tensor, "batch seq"]:
    """The last query that can see each key: the last with first <= key. Queries in between may not
    see it, if `first` is not ascending."""
    least_later = first.flip(-1).cummin(-1).values.flip(-1).contiguous()
    key = torch.arange(first.shape[1], dtype=first.dtype, device=first.device)
    after = torch.searchsorted(least_later, key.expand_as(first).contiguous(), right=True)
    return after.int() - 1
