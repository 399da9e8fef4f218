"""LLVM vector instructions, written with llvmlite: the building blocks of the row products.

An intrinsic's Python runs once, while numba compiles. It returns the types and `generate`, which
writes instructions with `builder`. A `Value` represents the future result of an instruction. A
Python loop writes its body many times; `cgutils.for_range` writes one compiled loop. Values never
change, so a running sum is a memory slot (`alloca_once_value`), which LLVM keeps in a register.

LLVM splits a vector over as many registers as the CPU needs. So only instructions that name a CPU
feature depend on the CPU. Addresses are 64-bit integers and need no alignment.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()
AHEAD = 4096  # bytes: roughly what is processed while one read from memory is under way

# The annotations of llvmlite and numba do not fit: llvmlite's give most instructions no result, and
# numba's keep the first parameter of a function decorated with `intrinsic`, which callers omit.
Builder = Any
Value = Any
intrinsic: Any = numba_intrinsic


class BFloat(ir.Type):
    """LLVM's bfloat type, which llvmlite does not define."""

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
    """A constant vector: one value for all lanes, or one value per lane."""
    listed = [values] * kind.count if isinstance(values, int | float) else list(values)
    return ir.Constant(kind, listed)


def zeros(kind: ir.VectorType) -> ir.Constant:
    return constant(kind, 0.0 if isinstance(kind.element, ir.FloatType) else 0)


def pick_lanes(builder: Builder, values: Value, lanes: Sequence[int]) -> Value:
    """A vector of the given lanes of `values`."""
    return builder.shuffle_vector(values, values, constant(vector(INT32, len(lanes)), lanes))


def broadcast(builder: Builder, value: Value, count: int) -> Value:
    """A number in every lane."""
    one = ir.Constant(vector(value.type, 1), ir.Undefined)
    return pick_lanes(
        builder, builder.insert_element(one, value, ir.Constant(INT32, 0)), [0] * count
    )


def call(builder: Builder, name: str, result: ir.Type, *arguments: Value) -> Value:
    """Call an instruction that LLVM provides as a function."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def load_vector(builder: Builder, address: Value, kind: ir.VectorType, offset: int = 0):
    """Load a vector from address + offset bytes."""
    if offset:
        address = builder.add(address, ir.Constant(INT64, offset))
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def store_vector(builder: Builder, values: Value, address: Value) -> None:
    """Store a vector at an address, which is a multiple of four bytes."""
    builder.store(values, builder.inttoptr(address, values.type.as_pointer()), align=4)


def prefetch(builder: Builder, address: Value, ahead: int = AHEAD) -> None:
    """Prefetch the cache line `ahead` bytes after an address. Unmapped addresses are ignored."""
    pointer = builder.inttoptr(builder.add(address, ir.Constant(INT64, ahead)), INT8.as_pointer())
    read, often, data = (ir.Constant(INT32, value) for value in (0, 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, read, often, data)


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once."""
    return call(builder, f"llvm.fma.v{a.type.count}f32", a.type, a, b, c)


def minimum(builder: Builder, a: Value, b: Value) -> Value:
    """The smaller unsigned integer of each lane."""
    return call(builder, f"llvm.umin.v{a.type.count}i{a.type.element.width}", a.type, a, b)


def maximum(builder: Builder, a: Value, b: Value) -> Value:
    """The larger unsigned integer of each lane."""
    return call(builder, f"llvm.umax.v{a.type.count}i{a.type.element.width}", a.type, a, b)


def sum_lanes(builder: Builder, values: Value) -> Value:
    """The sum of a vector's floats, adding one half to the other until one is left."""
    count = values.type.count
    while count > 1:
        count //= 2
        low, high = (
            pick_lanes(builder, values, lanes) for lanes in (range(count), range(count, 2 * count))
        )
        values = builder.fadd(low, high)
    return builder.extract_element(values, ir.Constant(INT32, 0))


def widen(builder: Builder, words: Value) -> tuple[Value, Value]:
    """bfloat16 words as float32: first those with an even index, then those with an odd one."""
    count = words.type.count // 2
    pairs = builder.bitcast(words, vector(INT32, count))
    even = builder.shl(pairs, constant(pairs.type, 16))
    odd = builder.and_(pairs, constant(pairs.type, 0xFFFF0000))
    wide = vector(FLOAT, count)
    return builder.bitcast(even, wide), builder.bitcast(odd, wide)


def pack_bfloat16(builder: Builder, low: Value, high: Value) -> Value:
    """Two float32 vectors as one of 32-bit words: the low half of each is from `low`."""
    words = vector(INT32, low.type.count)

    def round_up(values: Value) -> Value:
        """The nearest bfloat16, ties to even, in the upper half; below it are other bits."""
        bits = builder.bitcast(values, words)
        odd = builder.and_(builder.lshr(bits, constant(words, 16)), constant(words, 1))
        rounded = builder.add(bits, builder.add(odd, constant(words, 0x7FFF)))
        is_nan = builder.fcmp_unordered("uno", values, values)
        return builder.select(is_nan, constant(words, 0x7FC00000), rounded)

    upper = builder.and_(round_up(high), constant(words, 0xFFFF0000))
    return builder.or_(builder.lshr(round_up(low), constant(words, 16)), upper)
