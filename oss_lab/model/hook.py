"""Hooks: how to see or change what the forward pass computes, without editing the model.

The forward pass contains lines such as

    sink_mass = hook("attn.sink_mass", sink_mass)

You pass this function to the model, as `hooks=`. It receives the name of the hook point and the
value, and its result replaces the value: return `x` to observe it, or another tensor to change what
follows. An example that prints the shape of the residual stream (the vector per token that all
layers read and add to) after each layer:

    >>> import torch, oss_lab
    >>> def print_size(point, layer, x):
    ...     if point == "resid.post":
    ...         print(f"layer {layer}: {tuple(x.shape)}")
    ...     return x
    >>> model = oss_lab.load("nano", verbose=False).model
    >>> logits = model(torch.tensor([[1, 2, 3]]), hooks=print_size)
    layer 0: (1, 3, 96)
    layer 1: (1, 3, 96)
    layer 2: (1, 3, 96)
    layer 3: (1, 3, 96)

`oss_lab/hooks/points.py` lists all hook points. Without `hooks=` every such line returns its value
unchanged, and the logits are bit for bit the same as with hooks that only observe.
"""

import inspect
from collections.abc import Callable, Collection
from functools import partial
from types import FunctionType, MethodType

import torch
from torch import Tensor

from oss_lab.errors import LabError

Hooks = Callable[[str, int | None, Tensor], Tensor]
"""(point, layer, x) -> the value that replaces x; layer is None outside the layers."""

LayerHook = Callable[[str, Tensor], Tensor]
"""The hooks of one layer: (point, x) -> the value that replaces x."""


def check_parameters(what: str, function: Callable[..., object], *names: str) -> None:
    """Raise LabError unless a function can be called with these arguments, in this order."""
    if not isinstance(function, FunctionType | MethodType | partial):
        return  # others may not say what they take
    signature = inspect.signature(function)
    try:
        signature.bind(*names)
    except TypeError:
        name = getattr(function, "__name__", "the partial function")
        raise LabError(
            f"{what} must take ({', '.join(names)}), but {name} takes {signature}"
        ) from None


def check_hooks(hooks: Hooks) -> None:
    """Raise LabError unless `hooks` is a function of (point, layer, x)."""
    if not callable(hooks):
        raise LabError(f"hooks must be a function of (point, layer, x), got {hooks!r}")
    check_parameters("hooks", hooks, "point", "layer", "x")


def call_hooks(hooks: Hooks, point: str, layer: int | None, x: Tensor) -> Tensor:
    """The value that replaces x.

    Raises:
        LabError: it is not a tensor of the same kind; a value that rows share may get a row axis.
    """
    result = hooks(point, layer, x)
    if result is x:
        return x
    if not isinstance(result, Tensor):
        raise LabError(f"hooks at {point} must return x or another tensor, got {result!r}")
    if result.dtype != x.dtype or result.shape[result.ndim - x.ndim :] != x.shape:
        raise LabError(
            f"hooks at {point} must return {x.dtype} {list(x.shape)}, got {result.dtype}"
            f" {list(result.shape)}"
        )
    return result


def no_hooks(point: str, layer: int | None, x: Tensor) -> Tensor:
    """The default: does nothing."""
    return x


def in_layer(hooks: Hooks, layer: int | None) -> LayerHook:
    """The hook of one layer: `hooks` with its layer filled in (None outside the layers)."""
    if hooks is no_hooks:
        return return_unchanged
    return lambda point, x: call_hooks(hooks, point, layer, x)


def return_unchanged(point: str, x: Tensor) -> Tensor:
    """`no_hooks` with the layer filled in."""
    return x


class Recorder:
    """Hooks that copy every value at the given points and change nothing.

    `recorder.seen[point, layer]` is a list with one tensor per forward pass, oldest first; `layer`
    is None outside the layers (`embed`, `out.norm`, `out.logits`).
    """

    def __init__(self, points: Collection[str]) -> None:
        self.points = frozenset(points)
        self.seen: dict[tuple[str, int | None], list[Tensor]] = {}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point in self.points:
            self.seen.setdefault((point, layer), []).append(x.detach().clone())
        return x

    def stack(self, point: str) -> Tensor:
        """The first sequence of the last forward pass: [layer ...], or [...] outside the layers."""
        rows = [values[-1][0] for (seen, _), values in self.seen.items() if seen == point]
        return rows[0] if (point, None) in self.seen else torch.stack(rows)
