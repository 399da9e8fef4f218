"""MXFP4 to bfloat16, 32 rows at a time, in the order in which AMX reads weights.

Of 16 bits of a bfloat16, 8 are the exponent. So multiplying by a power of two adds to the exponent,
unless the number is zero or leaves the range:

    scale byte u  ->  u - 127 in bits 7 to 14  ->  added to a table of the 16 codes, except zeros
    16 bytes      ->  each in a 32-bit lane, and shifted by 12 in it: its codes start two words
                  ->  table[the lowest bits of each word]

Panels with a scale that could leave the range are dequantized with floats, by `dequantize`.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.dequantize import half_scale, look_up_group
from oss_kernels.cpu.e2m1_layouts import TABLE
from oss_kernels.cpu.e8m0_scales import are_ordinary

ROWS = 32
STEP = 64 * ROWS  # bytes of a group of all rows, as bfloat16
MARGIN = 3  # scales 3 to 252: half of the smallest is normal, six times the largest is finite


@v.intrinsic
def load_byte(typing, address):
    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], v.INT8.as_pointer()))

    return types.uint8(types.int64), generate


@v.intrinsic
def are_all_ordinary(typing, scales, count):
    """Whether `decode_ordinary` may be used for the `count` scales at this address."""

    def generate(context, builder, signature, arguments):
        scales, count = arguments
        return are_ordinary(builder, scales, count, MARGIN)

    return types.boolean(types.int64, types.int64), generate


@v.intrinsic
def decode_ordinary(typing, blocks, scales, groups, first, count, out):
    """Decode groups first to first + count - 1 of a panel to the address out.

    blocks and scales are the addresses of the panel's first row, groups is the length of a row.
    """

    def generate(context, builder, signature, arguments):
        blocks, scales, groups, first, count, out = arguments
        words = v.vector(v.INT16, 32)
        numbers = TABLE * 2  # the instruction uses five bits of a word and a code has four
        is_number = v.constant(v.vector(ir.IntType(1), 32), [int(n & 0x7FFF != 0) for n in numbers])
        shifted = v.constant(words, [n - (127 << 7) & 0xFFFF for n in numbers])
        table = v.constant(words, numbers)

        def decode(group: v.Value, row: v.Value) -> None:
            at = builder.add(builder.mul(row, groups), builder.add(first, group))
            byte = builder.load(builder.inttoptr(builder.add(scales, at), v.INT8.as_pointer()))
            exponent = builder.shl(builder.zext(byte, v.INT16), ir.Constant(v.INT16, 7))
            moved = builder.add(shifted, v.broadcast(builder, exponent, 32))
            scaled = builder.select(is_number, moved, table)
            packed = builder.add(blocks, builder.mul(at, ir.Constant(v.INT64, 16)))
            lanes = v.vector(v.INT32, 16)
            octets = builder.zext(v.load_vector(builder, packed, v.vector(v.INT8, 16)), lanes)
            codes = builder.or_(octets, builder.shl(octets, v.constant(lanes, 12)))
            name = "llvm.x86.avx512.permvar.hi.512"
            found = v.call(builder, name, words, scaled, builder.bitcast(codes, words))
            to = builder.add(builder.mul(group, ir.Constant(v.INT64, ROWS)), row)
            to = builder.add(out, builder.mul(to, ir.Constant(v.INT64, 64)))
            builder.store(found, builder.inttoptr(to, words.as_pointer()), align=64)

        height = ir.Constant(v.INT64, ROWS)
        with cgutils.for_range(builder, count) as group, cgutils.for_range(builder, height) as row:
            decode(group.index, row.index)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@v.intrinsic
def prefetch_bytes(typing, address, size):
    """Fetch this memory into the L2 cache while other work continues."""

    def generate(context, builder, signature, arguments):
        address, size = arguments
        line = ir.Constant(v.INT64, 64)
        with cgutils.for_range(builder, builder.sdiv(size, line)) as loop:
            v.prefetch(builder, builder.add(address, builder.mul(loop.index, line)), 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@njit(nogil=True)
def decode_any(blocks, scales, groups, first, count, out):
    """The same for any scales."""
    for group in range(count):
        for row in range(ROWS):
            at = row * groups + first + group
            scale = half_scale(load_byte(scales + at))
            look_up_group(blocks + 16 * at, scale, out + group * STEP + row * 64)
