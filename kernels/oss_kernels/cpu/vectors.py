"""LLVM vector instructions, written with llvmlite: what the products of rows are made of.

An intrinsic's Python runs once, while numba compiles. It returns the types and `generate`, which
writes instructions through `builder`; a `Value` stands for a result to come. A Python loop writes
its body many times, `cgutils.for_range` writes one loop. Values never change, so a running sum has
a slot (`alloca_once_value`), which LLVM keeps in a register.

LLVM spreads a vector over as many registers as the CPU needs, so only instructions with a CPU's
name in them are bound to it. Addresses are 64-bit integers; nothing has to be aligned.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()
AHEAD = 4096  # bytes: about what passes while memory answers

# llvmlite's annotations give most instructions no result, and numba's keep the first parameter of
# what `intrinsic` decorates, which callers do not pass.
Builder = Any
Value = Any
intrinsic: Any = numba_intrinsic


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


BFLOAT = BFloat()


def vector(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


def constant(kind: ir.VectorType, values: Sequence[float] | float) -> ir.Constant:
    """One value for every lane, or a value each."""
    listed = [values] * kind.count if isinstance(values, int | float) else list(values)
    return ir.Constant(kind, listed)


def zeros(kind: ir.VectorType) -> ir.Constant:
    return constant(kind, 0.0 if isinstance(kind.element, ir.FloatType) else 0)


def picked(builder: Builder, values: Value, lanes: Sequence[int]) -> Value:
    """The given lanes of a vector."""
    return builder.shuffle_vector(values, values, constant(vector(INT32, len(lanes)), lanes))


def spread(builder: Builder, value: Value, count: int) -> Value:
    """A number in every lane."""
    one = ir.Constant(vector(value.type, 1), ir.Undefined)
    return picked(builder, builder.insert_element(one, value, ir.Constant(INT32, 0)), [0] * count)


def call(builder: Builder, name: str, result: ir.Type, *arguments: Value) -> Value:
    """An instruction that LLVM offers as a function."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def load(builder: Builder, address: Value, kind: ir.VectorType, offset: int = 0):
    """A vector from address + offset bytes."""
    if offset:
        address = builder.add(address, ir.Constant(INT64, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def prefetch(builder: Builder, address: Value) -> None:
    """Ask for the bytes AHEAD of an address; one without memory is ignored."""
    pointer = builder.inttoptr(builder.add(address, ir.Constant(INT64, AHEAD)), INT8.as_pointer())
    read, often, data = (ir.Constant(INT32, value) for value in (0, 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, read, often, data)


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once."""
    return call(builder, f"llvm.fma.v{a.type.count}f32", a.type, a, b, c)


def smaller(builder: Builder, a: Value, b: Value) -> Value:
    """The smaller unsigned integer of each lane."""
    return call(builder, f"llvm.umin.v{a.type.count}i{a.type.element.width}", a.type, a, b)


def larger(builder: Builder, a: Value, b: Value) -> Value:
    """The larger unsigned integer of each lane."""
    return call(builder, f"llvm.umax.v{a.type.count}i{a.type.element.width}", a.type, a, b)


def total(builder: Builder, values: Value) -> Value:
    """The sum of a vector's floats, added in halves."""
    count = values.type.count
    while count > 1:
        count //= 2
        low, high = (
            picked(builder, values, lanes) for lanes in (range(count), range(count, 2 * count))
        )
        values = builder.fadd(low, high)
    return builder.extract_element(values, ir.Constant(INT32, 0))


def widen(builder: Builder, words: Value) -> tuple[Value, Value]:
    """bfloat16 words as float32: those with an even index, those with an odd one."""
    count = words.type.count // 2
    pairs = builder.bitcast(words, vector(INT32, count))
    even = builder.shl(pairs, constant(pairs.type, 16))
    odd = builder.and_(pairs, constant(pairs.type, 0xFFFF0000))
    wide = vector(FLOAT, count)
    return builder.bitcast(even, wide), builder.bitcast(odd, wide)
