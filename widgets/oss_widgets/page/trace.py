"""Fit a trace into a page: what is small and always recorded is kept first."""

import gzip
import json
from itertools import groupby
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS
from oss_lab.record.trace import Trace, read_trace
from oss_lab.record.trace_file import ENTRY, build_header


def fit_trace(path: str | Path, room: int) -> tuple[bytes, list[str]]:
    """A trace file, compressed with gzip to at most `room` bytes, and what was left out.

    Raises:
        LabError: it is not a trace, or its tokens alone do not fit.
    """
    trace = read_trace(path)
    used = len(pack(trace, {}))
    if used > room:
        raise LabError(
            f"{path} has {len(trace.tokens)} tokens, too many for a page; record a shorter one"
        )
    kept: dict[str, Tensor] = {}
    full: set[str] = set()  # points of which no further layer is tried
    for name in sorted(trace.tensors, key=lambda name: order(name, trace)):
        point = name.partition("/")[0]
        if point in full:
            continue
        tensor = trace.tensors[name].contiguous()
        size = len(gzip.compress(save({name: tensor}), mtime=0))
        if used + size <= room:
            kept[name] = tensor
            used += size
        else:
            full.add(point)
    packed = pack(trace, kept)
    while len(packed) > room:  # together they may take more than each on its own
        kept.popitem()
        packed = pack(trace, kept)
    return packed, describe([name for name in trace.tensors if name not in kept])


def order(name: str, trace: Trace) -> tuple[int, int, int]:
    """Sorts tensors: by tier, then by size, then by layer."""
    point, _, layer = name.partition("/")
    return POINTS[point].tier, trace.tensors[name].nbytes, int(layer or 0)


def pack(trace: Trace, tensors: dict[str, Tensor]) -> bytes:
    """A compressed trace file with these tensors."""
    points = {name.partition("/")[0] for name in tensors}
    header = build_header(trace)
    header["points"] = [name for name in header["points"] if name in points]
    return gzip.compress(save(tensors, {ENTRY: json.dumps(header)}), mtime=0)


def describe(names: list[str]) -> list[str]:
    """Names of tensors as texts, one for each point.

    >>> describe(["attn.pattern/0", "attn.pattern/1", "attn.pattern/3", "out.logits"])
    ['attn.pattern in layers 0 to 1, 3', 'out.logits']
    """
    layers: dict[str, list[int]] = {}
    for name in names:
        point, _, layer = name.partition("/")
        layers.setdefault(point, []).extend([int(layer)] if layer else [])
    return [
        f"{point} in layers {join_ranges(sorted(found))}" if found else point
        for point, found in layers.items()
    ]


def join_ranges(numbers: list[int]) -> str:
    """Ascending numbers as ranges.

    >>> join_ranges([0, 1, 2, 5])
    '0 to 2, 5'
    """
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    found = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if run[1:] else str(run[0]) for run in found)
