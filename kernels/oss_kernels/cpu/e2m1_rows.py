"""A row of MXFP4 weights times a vector, in the checkpoint's own byte order.

A chunk is 64 bytes (32 without AVX-512): 4 (2) groups of 32 weights. Every 16 bits of it hold four
codes. Shifted by 4·j, code j is in the low bits, and one instruction looks all of them up in a
table of bfloat16 numbers:

    word w of the chunk    | code 3 | code 2 | code 1 | code 0 |    elements 4w+3 ... 4w
    shifted by 4           |   0    | code 3 | code 2 | code 1 | -> table[code 1], element 4w+1

So it is the activations that are put in the order of the look-ups, once per token, and not the
weights. A group's scale multiplies the sum over the group. Sums are float32 throughout.

    path         looks up with               multiplies
    avx512_bf16  vpermw, 32 words            vdpbf16ps: two bfloat16 products, exact, a float32 lane
    avx512       vpermw, 32 words            float32, words widened by a shift or a mask
    avx2         vpshufb, 32 bytes, twice    float32, as above
    plain        no table: the code's bits placed in a float32 (`mxfp4.decode`)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.machine import Path
from oss_kernels.mxfp4.reference import E2M1_VALUES

GROUP_BYTES, GROUP = 16, 32
AHEAD = 4096  # bytes that are asked for before they are needed: about what memory's delay takes
# The upper half of the float32 is the bfloat16: all 16 values are exact.
TABLE = [int(bits) >> 16 for bits in np.array(E2M1_VALUES, dtype=np.float32).view(np.uint32)]


@dataclass(frozen=True)
class Layout:
    """How a path takes a chunk.

    Attributes:
        groups: of a chunk.
        lanes: of its float32 sums; each group has lanes / groups neighbouring ones.
        bits: of an activation: 16 for bfloat16, 32 for float32.
        order: the chunk's elements in the order in which activations are stored.
        multiply: (builder, address of the chunk, address of its activations) -> float32 lanes.
    """

    groups: int
    lanes: int
    bits: int
    order: tuple[int, ...]
    multiply: Callable[[v.Builder, v.Value, v.Value], v.Value]

    @property
    def elements(self) -> int:
        return self.groups * GROUP


def looked_up_512(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """128 weights as four vectors of 32 bfloat16: vector j has element 4w + j in word w."""
    words = v.vector(v.INT16, 32)
    packed = v.load(builder, chunk, words)
    # The instruction uses five bits of a word, a code has four: the table is there twice.
    table = v.constant(words, TABLE * 2)
    shifted = [builder.lshr(packed, v.constant(words, 4 * j)) for j in range(4)]
    name = "llvm.x86.avx512.permvar.hi.512"
    return [v.call(builder, name, words, table, codes) for codes in shifted]


def looked_up_256(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """64 weights as four vectors of 16 bfloat16, whose bytes are looked up apart and interleaved.

    Both steps stay within 16 bytes, a group: vector 2·n + h has, of either group, the codes n (low,
    high) of its bytes 8h to 8h + 7.
    """
    octets = v.vector(v.INT8, 32)
    packed = v.load(builder, chunk, octets)
    low_bits = v.constant(octets, 15)
    shifted = builder.lshr(packed, v.constant(octets, 4))
    tables = [
        v.constant(octets, [(entry >> shift & 255) for entry in TABLE] * 2) for shift in (0, 8)
    ]
    found = []
    for codes in (builder.and_(packed, low_bits), shifted):
        low, high = (
            v.call(builder, "llvm.x86.avx2.pshuf.b", octets, table, codes) for table in tables
        )
        for half in (0, 8):
            lanes = [
                lane + half + byte + of for lane in (0, 16) for byte in range(8) for of in (0, 32)
            ]
            mixed = builder.shuffle_vector(low, high, v.constant(v.vector(v.INT32, 32), lanes))
            found.append(builder.bitcast(mixed, v.vector(v.INT16, 16)))
    return found


def placed(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """64 weights as eight float32 vectors: vector j has element 8i + j in lane i."""
    words = v.vector(v.INT32, 8)
    packed = v.load(builder, chunk, words)
    unit = v.constant(v.vector(v.FLOAT, 8), 2.0**126)
    found = []
    for j in range(8):
        sign_first = builder.shl(packed, v.constant(words, 28 - 4 * j))
        bits = builder.ashr(sign_first, v.constant(words, 6))
        bits = builder.and_(bits, v.constant(words, 0x81C00000))
        found.append(builder.fmul(builder.bitcast(bits, unit.type), unit))
    return found


def float32_products(builder: v.Builder, weights: list[v.Value], x: v.Value) -> v.Value:
    """The products of float32 vectors with activations that lie as they do, in two sums."""
    kind = weights[0].type
    sums = [v.zeros(kind), v.zeros(kind)]
    for i, weight in enumerate(weights):
        activations = v.load(builder, x, kind, 4 * kind.count * i)
        sums[i % 2] = v.multiply_add(builder, weight, activations, sums[i % 2])
    return builder.fadd(*sums)


def widened(builder: v.Builder, words: list[v.Value]) -> list[v.Value]:
    return [half for each in words for half in v.widen(builder, each)]


def multiply_avx512_bf16(builder: v.Builder, chunk: v.Value, x: v.Value) -> v.Value:
    words, lanes = v.vector(v.BFLOAT, 32), v.vector(v.FLOAT, 16)
    sums = [v.zeros(lanes), v.zeros(lanes)]
    for j, weights in enumerate(looked_up_512(builder, chunk)):
        activations = builder.bitcast(v.load(builder, x, v.vector(v.INT16, 32), 64 * j), words)
        pair = (builder.bitcast(weights, words), activations)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        sums[j % 2] = v.call(builder, name, lanes, sums[j % 2], *pair)
    return builder.fadd(*sums)


def multiply_avx512(builder: v.Builder, chunk: v.Value, x: v.Value) -> v.Value:
    return float32_products(builder, widened(builder, looked_up_512(builder, chunk)), x)


def multiply_avx2(builder: v.Builder, chunk: v.Value, x: v.Value) -> v.Value:
    return float32_products(builder, widened(builder, looked_up_256(builder, chunk)), x)


def multiply_plain(builder: v.Builder, chunk: v.Value, x: v.Value) -> v.Value:
    return float32_products(builder, placed(builder, chunk), x)


LAYOUTS: dict[Path, Layout] = {
    "avx512_bf16": Layout(
        4, 16, 16, tuple(4 * w + j for j in range(4) for w in range(32)), multiply_avx512_bf16
    ),
    "avx512": Layout(
        4,
        16,
        32,
        tuple(4 * w + j for j in range(4) for odd in (0, 1) for w in range(odd, 32, 2)),
        multiply_avx512,
    ),
    "avx2": Layout(
        2,
        8,
        32,
        tuple(
            GROUP * group + 2 * (half + byte) + nibble
            for nibble in (0, 1)
            for half in (0, 8)
            for odd in (0, 1)
            for group in (0, 1)
            for byte in range(odd, 8, 2)
        ),
        multiply_avx2,
    ),
    "plain": Layout(2, 8, 32, tuple(8 * i + j for j in range(8) for i in range(8)), multiply_plain),
}


def group_scales(builder: v.Builder, address: v.Value, layout: Layout) -> v.Value:
    """A chunk's scale bytes u as float32, 2^(u - 127), each in all lanes of its group.

    u << 23 is that float's bits, but for 0 (2^-127 is a subnormal) and 255 (NaN).
    """
    octets = v.load(builder, address, v.vector(v.INT8, layout.groups))
    each = layout.lanes // layout.groups
    lanes = v.constant(
        v.vector(v.INT32, layout.lanes), [lane // each for lane in range(layout.lanes)]
    )
    octets = builder.shuffle_vector(octets, octets, lanes)
    kind = v.vector(v.INT32, layout.lanes)
    bits = builder.shl(builder.zext(octets, kind), v.constant(kind, 23))
    bits = v.call(
        builder, f"llvm.umax.v{layout.lanes}i32", kind, bits, v.constant(kind, 0x00400000)
    )
    is_nan = builder.icmp_unsigned("==", octets, v.constant(octets.type, 255))
    bits = builder.select(is_nan, v.constant(kind, 0x7FC00000), bits)
    return builder.bitcast(bits, v.vector(v.FLOAT, layout.lanes))


@v.intrinsic(prefer_literal=True)
def row_product(typing, path, x, blocks, scales, groups):
    """The product of a row with activations: a float32.

    `path` is a constant. x, blocks and scales are addresses, x of what `arrange` wrote; groups, of
    the row, at least a chunk's. If they do not fill the last chunk, it starts earlier and takes
    some groups again, whose activations there are zero.
    """
    layout = LAYOUTS[path.literal_value]
    step = layout.elements * layout.bits // 8

    def generate(context, builder, signature, arguments):
        _, x, blocks, scales, groups = arguments
        size = ir.Constant(v.INT64, layout.groups)
        lanes = v.vector(v.FLOAT, layout.lanes)
        sums = cgutils.alloca_once_value(builder, v.zeros(lanes))

        def add_chunk(number: v.Value, first: v.Value) -> None:
            chunk = builder.add(blocks, builder.mul(first, ir.Constant(v.INT64, GROUP_BYTES)))
            v.prefetch(builder, chunk, AHEAD)
            activations = builder.add(x, builder.mul(number, ir.Constant(v.INT64, step)))
            products = layout.multiply(builder, chunk, activations)
            scale = group_scales(builder, builder.add(scales, first), layout)
            builder.store(v.multiply_add(builder, products, scale, builder.load(sums)), sums)

        full = builder.sdiv(groups, size)
        with cgutils.for_range(builder, full) as loop:
            add_chunk(loop.index, builder.mul(loop.index, size))
        rest = builder.icmp_signed("!=", builder.mul(full, size), groups)
        with builder.if_then(rest, likely=False):
            add_chunk(full, builder.sub(groups, size))
        return v.total(builder, builder.load(sums))

    address = types.int64
    return types.float32(path, address, address, address, address), generate
