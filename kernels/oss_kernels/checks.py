"""What the kernels' callers refuse before memory is touched.

A kernel is given addresses and sizes, and does not see where a tensor ends. Each operation's folder
has a `checks.py` that the CPU's function and Triton's both call, in a microsecond or two: one token
is one call a layer. The references need none, since torch checks for itself.
"""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)


def check_axes(name: str, tensor: Tensor, axes: str) -> torch.Size:
    """The tensor's shape, which has an axis for each word of `axes`."""
    if tensor.ndim != axes.count(" ") + 1:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}; it must be [{axes}]")
    return tensor.shape


def check_shape(name: str, tensor: Tensor | None, *shape: int) -> None:
    """None has any shape."""
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{name} has the shape {list(tensor.shape)}; it must be {list(shape)}")


def check_dtype(name: str, tensor: Tensor | None, *dtypes: torch.dtype) -> None:
    """None has any type."""
    if tensor is not None and tensor.dtype not in dtypes:
        wanted = " or ".join(map(str, dict.fromkeys(dtypes)))
        raise ValueError(f"{name} is {tensor.dtype}; it must be {wanted}")


def check_no_gradient(*tensors: Tensor | None) -> None:
    """That nobody waits for a gradient, which kernels do not compute."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise ValueError(
            "kernels compute no gradients; use the reference, or call them under torch.no_grad()"
        )
