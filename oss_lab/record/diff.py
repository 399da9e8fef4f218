"""Where two traces differ: origin and tokens, then each tensor's first and largest difference."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.points import POINTS
from oss_lab.record.trace import Trace

ROUNDING = {"kernels", "dtype", "device", "versions", "reason"}
"""What changes only the rounding of a run; fields of a trace's origin."""


class UnequalEnginesWarning(UserWarning):
    """Two traces were computed by different engines."""


@check_arguments
def compare_traces(a: Trace, b: Trace, tolerance: float = 0.0) -> Iterator[str]:
    """One line per difference; none if the traces are equal.

    Expert ids are compared as sets, because two near-equal experts may swap slots. If both traces
    have `moe.margin`, the margin shows whether rounding alone may have changed a choice. Positions
    refer to the full sequence, even if a trace contains only some of them. If the lengths differ,
    the common beginning is compared.
    """
    if tolerance < 0:
        raise LabError(f"tolerance is {tolerance}; it must be 0 or more")
    if a.origin.kernels != b.origin.kernels:
        warnings.warn(
            f"these traces were computed by different engines ({a.origin.kernels} and"
            f" {b.origin.kernels}): values differ by rounding, and near-equal choices may flip",
            UnequalEnginesWarning,
            stacklevel=2,
        )
    theirs = asdict(b.origin)
    for name, ours in asdict(a.origin).items():
        if ours != theirs[name]:
            yield f"{name}: {ours} | {theirs[name]}"
    if a.tokens != b.tokens:
        first = find_first_difference(a, b)
        yield f"tokens: first difference at position {first}, of {len(a.tokens)} | {len(b.tokens)}"
    if (a.selection.positions, a.selection.heads) != (b.selection.positions, b.selection.heads):
        yield "positions or heads: the traces keep different ones, so no tensor is compared"
        return
    for name in [*a.tensors, *(name for name in b.tensors if name not in a.tensors)]:
        if name not in a.tensors or name not in b.tensors:
            yield f"{name}: only in {'the first' if name in a.tensors else 'the second'}"
        elif line := compare_tensor(name, a, b, float(tolerance)):
            yield f"{name}: {line}"


def find_tolerance(a: Trace, b: Trace) -> float | None:
    """The power of ten that is at least every difference that only rounding can have made.

    These are the differences at the first tokens of two runs, as far as the tokens are equal. None
    if there are none, or if the runs differ in more than tokens, engine, precision, device and
    versions.
    """
    ours, theirs = asdict(a.origin), asdict(b.origin)
    differing = {name for name in ours if ours[name] != theirs[name]}
    same_heads = a.selection.heads == b.selection.heads
    same_positions = a.selection.positions == b.selection.positions
    if not (same_heads and same_positions and differing <= ROUNDING):
        return None
    count = sum(position < find_first_difference(a, b) for position in a.positions)
    largest = 0.0
    for name in a.tensors.keys() & b.tensors.keys():
        point = POINTS[name.partition("/")[0]]
        x, y = crop(a.tensors[name], b.tensors[name], point.axes)
        if "seq" in point.axes:
            x, y = x[:count], y[:count]
        elif a.tokens != b.tokens:
            continue
        if point.kind not in ("expert", "token") and x.numel():
            largest = max(largest, absolute_difference(x, y).max().item())
    return 10.0 ** math.ceil(math.log10(largest)) if 0 < largest < math.inf else None


def find_first_difference(a: Trace, b: Trace) -> int:
    """The first position with different tokens; the shorter length if there is none."""
    pairs = enumerate(zip(a.tokens, b.tokens, strict=False))
    shorter = min(len(a.tokens), len(b.tokens))
    return next((n for n, (ours, theirs) in pairs if ours != theirs), shorter)


def crop(x: Tensor, y: Tensor, axes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The common beginning of two tensors along the sequence and the keys."""
    if "seq" in axes:
        common = min(len(x), len(y))
        x, y = x[:common], y[:common]
    if "key" in axes:
        keys = min(x.shape[-1], y.shape[-1])
        x, y = x[..., :keys], y[..., :keys]
    return x, y


def compare_tensor(name: str, a: Trace, b: Trace, tolerance: float) -> str | None:
    """What differs in one tensor, or None."""
    x, y = a.tensors[name], b.tensors[name]
    point = POINTS[name.partition("/")[0]]
    x, y = crop(x, y, point.axes)
    if x.shape != y.shape:
        return f"shapes {list(x.shape)} | {list(y.shape)}"
    if point.kind == "expert":
        x, y = x.sort().values, y.sort().values
    apart = absolute_difference(x, y) > tolerance
    if not apart.any():
        return None
    largest = absolute_difference(x, y).max().item()
    if "seq" not in point.axes:
        return f"largest difference {largest:.3g}"
    rows = apart.flatten(1).any(1) if apart.dim() > 1 else apart
    places = rows.nonzero().flatten().tolist()
    first = a.positions[places[0]]
    found = f"from position {first} on, {len(places)} of {len(rows)} positions"
    if point.kind == "expert":
        return found + describe_margins(name, a, b, rows)
    return found if point.kind == "token" else f"{found}, at most {largest:.3g}"


def describe_margins(name: str, a: Trace, b: Trace, rows: Tensor) -> str:
    """The router margin where the chosen experts differ; "" if it was not recorded."""
    margin = name.replace("moe.expert_ids", "moe.margin")
    if margin not in a.tensors or margin not in b.tensors:
        return ""
    narrower = torch.minimum(a.tensors[margin][: len(rows)], b.tensors[margin][: len(rows)])
    other, same = narrower[rows], narrower[~rows]
    there = f", where the margin is at most {other.max():.3g}"
    return f"{there} (median elsewhere {same.median():.3g})" if len(same) else there


def absolute_difference(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| in float64. Equal infinities do not differ; NaN differs from any number."""
    wide, other = x.double(), y.double()
    same = (wide == other) | (wide.isnan() & other.isnan())
    return torch.where(same, 0.0, (wide - other).abs().nan_to_num(nan=torch.inf))
