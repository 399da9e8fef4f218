"""A batch of copies of one sequence, each row with values of another run patched in.

Tokens before the first patched position come from a forked cache. Rows run in chunks whose
attention scores fit in SCORES.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.forwards import run_forward
from oss_lab.config import ModelConfig
from oss_lab.engine.cache import KVCache
from oss_lab.engine.engine import Engine
from oss_lab.hooks.points import POINTS

if TYPE_CHECKING:
    from oss_lab.lab import Lab

SCORES = 2**24  # attention scores of one layer for a chunk of rows: 64 MiB
Site = tuple[int, int | None]
"""A layer, and one of its heads. None patches the whole value at a position."""


def run_patched(
    lab: "Lab",
    corrupted: Sequence[int],
    cache: KVCache,
    begin: int,
    point: str,
    values: Sequence[Tensor],
    sites: Sequence[Site],
    engine: Engine,
) -> Float[Tensor, "site vocab"]:
    """The last logits of a sequence with each site patched, run from position `begin`.

    Args:
        cache: of the whole sequence, read without a patch.
        values: the clean run's values by layer, at the positions to patch, `begin` first.
        engine: the one that computed the cache.
    """
    suffix = torch.tensor([list(corrupted[begin:])], device=lab.model.device)
    size = rows_per_chunk(lab.config, len(corrupted), suffix.shape[1])
    found: list[Tensor] = []
    for start in range(0, len(sites), size):
        chunk = sites[start : start + size]
        rows = cache.fork(batch=len(chunk), at=begin)
        patched = OneSitePerRow(point, values, chunk)
        ids = suffix.expand(len(chunk), -1)
        logits = run_forward(lab, ids, rows, last=1, also=patched, engine=engine)
        found.append(logits[:, 0].double().cpu())
    return torch.cat(found)


def rows_per_chunk(config: ModelConfig, keys: int, queries: int) -> int:
    """How many rows fit in SCORES, with one layer's attention scores each."""
    return max(1, SCORES // (config.num_attention_heads * keys * queries))


class OneSitePerRow:
    """Hooks for a batch of copies of one sequence.

    Each row gets the clean values of one site at its first positions.
    """

    def __init__(self, point: str, values: Sequence[Tensor], sites: Sequence[Site]) -> None:
        self.point, self.values, self.sites = point, values, sites

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        rows = [row for row, (of, _) in enumerate(self.sites) if of == layer]
        if layer is None or point != self.point or not rows:
            return x
        x, values = x.clone(), self.values[layer].to(x)
        seq_first = x.transpose(1, 2) if POINTS[point].has_head_axis else x
        for row in rows:
            head = self.sites[row][1]
            if head is None:
                seq_first[row, : len(values)] = values
            else:
                seq_first[row, : len(values), head] = values[:, head]
        return x
