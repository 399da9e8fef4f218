"""Compiles one launch for one target, specialized in the same way as when it runs.

Triton's launcher marks pointers and integers that are divisible by 16, and turns the integer 1 into
a constant. Without the same marks here, the code would lack wide loads and asynchronous copies, and
the gate would check code that never runs.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from oss_kernels.gate.targets import CompileTarget
from oss_kernels.launch import Launch

TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}
DIVISIBLE = [["tt.divisibility", 16]]


def build(launch: Launch, target: CompileTarget) -> Any:
    """Triton's compiled kernel, with `.metadata` and the code of each stage in `.asm`."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    given = launch.arguments | launch.constants
    for place, name in enumerate(launch.kernel.arg_names):
        value = given[name]
        if name in launch.constants or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name] = type_of(value)
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[place,] = DIVISIBLE
    source = ASTSource(launch.kernel, signature, constants, attributes)
    gpu = GPUTarget(target.backend, target.arch, target.warp)
    return triton.compile(source, target=gpu, options=launch.options)


def type_of(value: Tensor | int | float) -> str:
    """The parameter's type in Triton's signature."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"
