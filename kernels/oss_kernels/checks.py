"""Checks of tensors before a kernel reads or writes memory.

A kernel gets addresses and sizes and cannot see where a tensor ends. Each operation's `checks.py`
is called by both its CPU and its Triton function. Checks take a microsecond or two, because every
token calls them in every layer. The references need none, since torch makes its own checks.
"""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)


def check_axes(name: str, tensor: Tensor, axes: str) -> torch.Size:
    """The tensor's shape. Raises ValueError unless it has one axis per word of `axes`."""
    if tensor.ndim != axes.count(" ") + 1:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}; it must be [{axes}]")
    return tensor.shape


def check_shape(name: str, tensor: Tensor | None, *shape: int) -> None:
    """Raises ValueError unless the tensor has this shape. None always passes."""
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}; it must be {list(shape)}")


def check_dtype(name: str, tensor: Tensor | None, *dtypes: torch.dtype) -> None:
    """Raises ValueError unless the tensor has one of these dtypes. None always passes."""
    if tensor is not None and tensor.dtype not in dtypes:
        wanted = " or ".join(map(str, dict.fromkeys(dtypes)))
        raise ValueError(f"{name} is {tensor.dtype}; it must be {wanted}")


def check_no_gradient(*tensors: Tensor | None) -> None:
    """Raises ValueError if a gradient is needed, since kernels do not compute gradients."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise ValueError(
            "kernels compute no gradients; use the reference, or call them under torch.no_grad()"
        )
