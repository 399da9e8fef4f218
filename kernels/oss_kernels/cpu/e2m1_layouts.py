"""How MXFP4 weights become vectors of numbers, in the checkpoint's byte order.

A chunk is 64 bytes (32 without AVX-512), which is 4 (2) groups of 32 weights. Each 16-bit word has
four codes. A shift by 4·j moves code j to the low bits, and one instruction looks up code j of all
words in a table of bfloat16 numbers:

    word w of the chunk    | code 3 | code 2 | code 1 | code 0 |    elements 4w+3 ... 4w
    shifted by 4           |   0    | code 3 | code 2 | code 1 | -> table[code 1], element 4w+1

The activations are reordered to match the lookups, once per token; the weights never are. Scales
are applied after the products; see `e2m1_rows`.

    path         looks up with               multiplies
    avx512_bf16  vpermw, 32 words            vdpbf16ps: two exact bfloat16 products per float32 lane
    avx512       vpermw, 32 words            float32, words widened by a shift or a mask
    avx2         vpshufb, 32 bytes, twice    float32, as above
    plain        no table: moves the code's bits into a float32 (see `mxfp4.decode`)

    vpermw       word i becomes table[lowest 5 bits of word i]
    vpshufb      byte i becomes table[lowest 4 bits of byte i], within 16 bytes
    vdpbf16ps    lane i adds the products of the words 2i and 2i + 1
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.machine import InstructionSet, accepts, list_paths
from oss_kernels.mxfp4.reference import E2M1_VALUES

GROUP = 32  # weights, in 16 bytes
# The upper half of a float32 is the bfloat16, and all 16 values are exact in it.
TABLE = [int(bits) >> 16 for bits in np.array(E2M1_VALUES, dtype=np.float32).view(np.uint32)]


@dataclass(frozen=True)
class Layout:
    """How a path processes a chunk.

    Attributes:
        groups: groups per chunk, and so the fewest that a row may have.
        lanes: float32 sums per chunk; each group has lanes / groups neighboring lanes.
        bits: bits per activation: 16 for bfloat16, 32 for float32.
        order: element indices of the chunk, in the order in which activations are stored.
        decode: (builder, address of the chunk) -> its weights, in that order.
        multiply: (builder, weights, address of activations) -> float32 lanes.
    """

    groups: int
    lanes: int
    bits: int
    order: tuple[int, ...]
    decode: Callable[[v.Builder, v.Value], list[v.Value]]
    multiply: Callable[[v.Builder, list[v.Value], v.Value], v.Value]

    @property
    def elements(self) -> int:
        return self.groups * GROUP


def look_up_512(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """128 weights as four vectors of 32 bfloat16: vector j has element 4w + j in word w."""
    words = v.vector(v.INT16, 32)
    packed = v.load_vector(builder, chunk, words)
    # The instruction uses five bits of a word and a code has four, so the table is repeated.
    table = v.constant(words, TABLE * 2)
    shifted = [builder.lshr(packed, v.constant(words, 4 * j)) for j in range(4)]
    name = "llvm.x86.avx512.permvar.hi.512"
    return [v.call(builder, name, words, table, codes) for codes in shifted]


def look_up_256(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """64 weights as four vectors of 16 bfloat16.

    The low and the high byte of each bfloat16 are looked up separately, then interleaved. Both
    steps stay within 16 bytes, which is one group. Vector 2·n + h has nibble n (0 low, 1 high) of
    bytes 8h to 8h + 7 of each group.
    """
    octets = v.vector(v.INT8, 32)
    packed = v.load_vector(builder, chunk, octets)
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
            # For half 8: low 8, high 8, low 9, high 9, ..., high 15, then low 24, high 24, ...
            lanes = [
                vector_start + group_start + half + byte
                for group_start in (0, 16)
                for byte in range(8)
                for vector_start in (0, 32)  # low bytes, high bytes
            ]
            mixed = builder.shuffle_vector(low, high, v.constant(v.vector(v.INT32, 32), lanes))
            found.append(builder.bitcast(mixed, v.vector(v.INT16, 16)))
    return found


def decode_in_place(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    """64 weights as eight float32 vectors: vector j has element 8i + j in lane i."""
    words = v.vector(v.INT32, 8)
    packed = v.load_vector(builder, chunk, words)
    unit = v.constant(v.vector(v.FLOAT, 8), 2.0**126)
    found = []
    for j in range(8):
        sign_first = builder.shl(packed, v.constant(words, 28 - 4 * j))
        bits = builder.ashr(sign_first, v.constant(words, 6))
        bits = builder.and_(bits, v.constant(words, 0x81C00000))
        found.append(builder.fmul(builder.bitcast(bits, unit.type), unit))
    return found


def widen_512(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    return [half for words in look_up_512(builder, chunk) for half in v.widen(builder, words)]


def widen_256(builder: v.Builder, chunk: v.Value) -> list[v.Value]:
    return [half for words in look_up_256(builder, chunk) for half in v.widen(builder, words)]


def multiply_bfloat16(builder: v.Builder, weights: list[v.Value], x: v.Value) -> v.Value:
    words, pairs, lanes = v.vector(v.INT16, 32), v.vector(v.BFLOAT, 32), v.vector(v.FLOAT, 16)
    products = v.zeros(lanes)
    for j, weight in enumerate(weights):
        activations = builder.bitcast(v.load_vector(builder, x, words, 64 * j), pairs)
        own = (builder.bitcast(weight, pairs), activations)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        products = v.call(builder, name, lanes, products, *own)
    return products


def multiply_float32(builder: v.Builder, weights: list[v.Value], x: v.Value) -> v.Value:
    kind = weights[0].type
    products = v.zeros(kind)
    for j, weight in enumerate(weights):
        activations = v.load_vector(builder, x, kind, 4 * kind.count * j)
        products = v.multiply_add(builder, weight, activations, products)
    return products


LAYOUTS: dict[InstructionSet, Layout] = {
    "avx512_bf16": Layout(
        groups=4,
        lanes=16,
        bits=16,
        # For code 1, words 0, 1, 2, ...: elements 1, 5, 9, ...
        order=tuple(4 * word + code for code in range(4) for word in range(32)),
        decode=look_up_512,
        multiply=multiply_bfloat16,
    ),
    "avx512": Layout(
        groups=4,
        lanes=16,
        bits=32,
        # For code 1, words 0, 2, 4, ..., then 1, 3, ...: elements 1, 9, 17, ..., then 5, 13, ...
        order=tuple(
            4 * word + code for code in range(4) for odd in (0, 1) for word in range(odd, 32, 2)
        ),
        decode=widen_512,
        multiply=multiply_float32,
    ),
    "avx2": Layout(
        groups=2,
        lanes=8,
        bits=32,
        # For nibble 1, bytes 0, 2, 4 and 6 of group 0, then of group 1, then the odd bytes:
        # elements 1, 5, 9, 13, 33, 37, 41, 45, 3, 7, ...
        order=tuple(
            GROUP * group + 2 * (half + byte) + nibble
            for nibble in (0, 1)
            for half in (0, 8)
            for odd in (0, 1)
            for group in (0, 1)
            for byte in range(odd, 8, 2)
        ),
        decode=widen_256,
        multiply=multiply_float32,
    ),
    "plain": Layout(
        groups=2,
        lanes=8,
        bits=32,
        # For code 1, words 0, 1, 2, ...: elements 1, 9, 17, ...
        order=tuple(8 * word + code for code in range(8) for word in range(8)),
        decode=decode_in_place,
        multiply=multiply_float32,
    ),
}


@cache
def choose_path(dtype: torch.dtype, groups: int) -> InstructionSet | None:
    """The fastest path for activations of this dtype and rows of this many groups, or None."""
    if dtype not in (torch.bfloat16, torch.float32):
        return None
    for path in list_paths():
        if groups >= LAYOUTS[path].groups and accepts(path, dtype):
            return path
    return None
