"""Where two traces differ: origin and tokens, then each tensor's first and largest difference."""

import math
import warnings
from collections.abc import Iterator
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
        same = min(len(a.tokens), len(b.tokens))
        first = next((n for n in range(same) if a.tokens[n] != b.tokens[n]), same)
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
    """The power of ten that is at least every difference of two runs that only round differently.

    None if the runs differ in anything but engine, precision, device and versions, or not at all.
    """
    ours, theirs = asdict(a.origin), asdict(b.origin)
    differing = {name for name in ours if ours[name] != theirs[name]}
    kept, other = a.selection, b.selection
    is_same_run = a.tokens == b.tokens and kept.positions == other.positions
    if not is_same_run or kept.heads != other.heads or not differing <= ROUNDING:
        return None
    floats = [
        name
        for name in a.tensors.keys() & b.tensors.keys()
        if POINTS[name.partition("/")[0]].kind not in ("expert", "token")
    ]
    largest = max(
        (absolute_difference(a.tensors[name], b.tensors[name]).max().item() for name in floats),
        default=0.0,
    )
    return 10.0 ** math.ceil(math.log10(largest)) if 0 < largest < math.inf else None


def compare_tensor(name: str, a: Trace, b: Trace, tolerance: float) -> str | None:
    """What differs in one tensor, or None."""
    x, y = a.tensors[name], b.tensors[name]
    point = POINTS[name.partition("/")[0]]
    if "seq" in point.axes:
        common = min(len(x), len(y))
        x, y = x[:common], y[:common]
    if "key" in point.axes:
        keys = min(x.shape[-1], y.shape[-1])
        x, y = x[..., :keys], y[..., :keys]
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
