"""Compiles one launch for one target, specialized in the same way as when it runs.

Triton's launcher marks pointers and integers that are divisible by 16, and turns the integer 1 into
a constant. Without the same marks here, the code would lack wide loads and asynchronous copies, and
the gate would check code that never runs.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from oss_kernels.gate.targets import CompileTarget
from oss_kernels.launch import Launch, adapt_constants

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


@dataclass(frozen=True)
class Variant:
    """What Triton compiles a kernel for. Launches with equal variants share their code.

    Attributes:
        signature: the type of each parameter, by name.
        constants: the parameters known at compile time.
        attributes: the marks of the others, by place.
    """

    signature: dict[str, str]
    constants: dict[str, Any]
    attributes: dict[tuple[int, ...], list[list[Any]]]


def find_variant(launch: Launch, backend: str) -> Variant:
    """The variant of a launch for a compiler back end, "cuda" or "hip"."""
    variant = Variant({}, {}, {})
    fixed = adapt_constants(launch.constants, backend)
    given = launch.arguments | fixed
    for place, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, given[parameter.name]
        is_marked = isinstance(value, int) and not parameter.do_not_specialize
        if name in fixed or (is_marked and value == 1):
            variant.signature[name], variant.constants[name] = "constexpr", value
            continue
        variant.signature[name] = type_of(value)
        if isinstance(value, Tensor) or (is_marked and value % 16 == 0):
            variant.attributes[place,] = DIVISIBLE
    return variant


def build(launch: Launch, target: CompileTarget) -> Any:
    """Triton's compiled kernel, with `.metadata` and the code of each stage in `.asm`."""
    variant = find_variant(launch, target.backend)
    source = ASTSource(launch.kernel, variant.signature, variant.constants, variant.attributes)
    gpu = GPUTarget(target.backend, target.arch, target.warp)
    return triton.compile(source, target=gpu, options=launch.options)


def type_of(value: Tensor | int | float) -> str:
    """The parameter's type in Triton's signature."""
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"
