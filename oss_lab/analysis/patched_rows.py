"""A batch of one sequence, each row with other values of another run put in.

What comes before the first patched position is read from a forked cache; rows are run in chunks, so
that their attention scores stay within SCORES.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.cache import KVCache
from oss_lab.hooks.interventions.changes import Both
from oss_lab.hooks.points import POINTS
from oss_lab.lab import Lab
from oss_lab.model.tap import Tap, keep

SCORES = 2**24  # attention scores of one layer that a chunk of rows may take, 64 MiB
Site = tuple[int, int | None]
"""A layer, and one of its heads or None for all that stands at a position."""


def swept(
    lab: Lab,
    corrupted: Sequence[int],
    cache: KVCache,
    begin: int,
    point: str,
    values: Sequence[Tensor],
    sites: Sequence[Site],
) -> Float[Tensor, "site vocab"]:
    """The last logits of a sequence with each site patched, run from `begin` on.

    Args:
        cache: holds all of the sequence, read without a patch.
        values: of the clean run, by layer, at the positions from `begin` on that are patched.
    """
    suffix = torch.tensor([list(corrupted[begin:])], device=lab.model.device)
    size = rows_at_once(lab.config, len(corrupted), suffix.shape[1])
    found: list[Tensor] = []
    for start in range(0, len(sites), size):
        chunk = sites[start : start + size]
        taps = Both(lab.taps(begin), OneSiteARow(point, values, chunk))
        rows = cache.fork(batch=len(chunk), at=begin)
        logits = lab.model(suffix.expand(len(chunk), -1), rows, last=1, taps=taps)
        found.append(logits[:, 0].double().cpu())
    return torch.cat(found)


def rows_at_once(config: ModelConfig, keys: int, queries: int) -> int:
    """How many rows keep a layer's attention scores within SCORES."""
    return max(1, SCORES // (config.num_attention_heads * keys * queries))


class OneSiteARow:
    """Taps for a batch of one sequence: each row gets the values of one site, at its first
    positions."""

    def __init__(self, point: str, values: Sequence[Tensor], sites: Sequence[Site]) -> None:
        self.point, self.values, self.sites = point, values, sites
        self.points = self.writes = (point,)

    def __call__(self, layer: int | None) -> Tap:
        rows = [row for row, (of, _) in enumerate(self.sites) if of == layer]
        if layer is None or not rows:
            return keep
        heads = [self.sites[row][1] for row in rows]

        def change(name: str, x: Tensor) -> Tensor:
            if name != self.point:
                return x
            x, values = x.clone(), self.values[layer].to(x)
            seq_first = x.transpose(1, 2) if POINTS[name].by_head else x
            for row, head in zip(rows, heads, strict=True):
                if head is None:
                    seq_first[row, : len(values)] = values
                else:
                    seq_first[row, : len(values), head] = values[:, head]
            return x

        return change
