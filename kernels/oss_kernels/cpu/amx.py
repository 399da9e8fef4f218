"""AMX: an Intel core's matrix unit, which multiplies 16 x 32 by 32 x 16 bfloat16 numbers at once.

A core has eight tile registers, each 16 rows of 64 bytes. One instruction adds the product of two
tiles to a third:

    sums    16 x 16 float32
    left    16 x 32 bfloat16: row r has 32 neighboring numbers of matrix row r
    right   32 x 16 bfloat16, in pairs: row p, word c has numbers 2p and 2p + 1 of matrix column c

Here `left` is weights, whose rows are used as they are, and `right` is activations of 16 tokens.
Two left and two right tiles make four products, so each loaded tile is used twice.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v

SIDE = 16  # rows of a tile, and tokens
DEPTH = 32  # numbers that one instruction adds up; also the size of an MXFP4 group
TILE = 1024  # bytes
ROWS = 2 * SIDE  # of weights in a block
TOKENS = 2 * SIDE  # in a block
LEFT, RIGHT = (4, 5), (6, 7)  # tile registers; 0 to 3 have the sums


def _call(builder: v.Builder, name: str, *arguments: v.Value) -> None:
    v.call(builder, f"llvm.x86.{name}", ir.VoidType(), *arguments)


def _tile(number: int) -> ir.Constant:
    return ir.Constant(v.INT8, number)


def _pointer(builder: v.Builder, address: v.Value, offset: int = 0) -> v.Value:
    moved = builder.add(address, ir.Constant(v.INT64, offset))
    return builder.inttoptr(moved, v.INT8.as_pointer())


@v.intrinsic
def open_tiles(typing):
    """Give all eight tiles their full size on this thread. Needed before `multiply_block`."""

    def generate(context, builder, signature, arguments):
        # Palette 1, then 16-bit widths in bytes from byte 16, then 8-bit heights from byte 48.
        octets = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [SIDE] * 8 + [0] * 8
        kind = v.vector(v.INT8, 64)
        slot = cgutils.alloca_once_value(builder, v.constant(kind, octets))
        builder.store(v.constant(kind, octets), slot)
        _call(builder, "ldtilecfg", builder.bitcast(slot, v.INT8.as_pointer()))
        return context.get_dummy_value()

    return types.void(), generate


@v.intrinsic
def close_tiles(typing):
    """Free the tiles. Until then each switch to another thread saves 8 KB."""

    def generate(context, builder, signature, arguments):
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@v.intrinsic(prefer_literal=True)
def multiply_block(typing, tiles, is_first, left, line, step, right, stride, steps, sums):
    """A block of products, 32 rows of weights by 32 or 16 tokens, added to sums unless is_first.

    `tiles`, a compile-time constant, is 2 for 32 tokens and 1 for 16. left, right and sums are
    addresses. Rows of 32 weights are `line` bytes apart, and those of the next step `step` bytes.
    right is bfloat16 [step, 16, token 16, 2], that of the second tile of tokens `stride` bytes
    later. sums is float32 [32 rows, 32 tokens]; tokens 16 to 31 are left alone if tiles is 1.
    """
    columns = range(tiles.literal_value)
    blocks = [(row, column) for row in (0, 1) for column in columns]

    def generate(context, builder, signature, arguments):
        _, is_first, left, line, step, right, stride, steps, sums = arguments
        tile_line, size = ir.Constant(v.INT64, 64), ir.Constant(v.INT64, TILE)
        sums_line = ir.Constant(v.INT64, 4 * TOKENS)
        lower = builder.mul(line, ir.Constant(v.INT64, SIDE))  # from row 0 to row 16

        def move_sums(instruction: str) -> None:
            for row, column in blocks:
                pointer = _pointer(builder, sums, row * SIDE * 4 * TOKENS + column * 64)
                _call(builder, instruction, _tile(2 * row + column), pointer, sums_line)

        with builder.if_else(is_first) as (begin, resume):
            with begin:
                for row, column in blocks:
                    _call(builder, "tilezero", _tile(2 * row + column))
            with resume:
                move_sums("tileloadd64")
        with cgutils.for_range(builder, steps) as loop:
            at = builder.add(right, builder.mul(loop.index, size))
            for column in columns:
                _call(
                    builder, "tileloadd64", _tile(RIGHT[column]), _pointer(builder, at), tile_line
                )
                at = builder.add(at, stride)
            at = builder.add(left, builder.mul(loop.index, step))
            for row in (0, 1):
                _call(builder, "tileloadd64", _tile(LEFT[row]), _pointer(builder, at), line)
                at = builder.add(at, lower)
            for row, column in blocks:
                tiles = _tile(2 * row + column), _tile(LEFT[row]), _tile(RIGHT[column])
                _call(builder, "tdpbf16ps", *tiles)
        move_sums("tilestored64")
        return context.get_dummy_value()

    given = (tiles, types.boolean, *[types.int64] * 7)
    return types.void(*given), generate
