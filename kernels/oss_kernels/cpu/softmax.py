"""The softmax of attention, one block of keys at a time, for 16 queries in the lanes of a vector.

Scores have a row for each key, so the maximum and the sum over keys need no work across lanes. The
exponentials are written as bfloat16 in the order in which AMX reads its right tiles.

A later block may have a larger maximum. Then everything summed so far is multiplied by a factor.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.exponential import exponentials

LANES, WORDS = v.vector(v.FLOAT, 16), v.vector(v.INT32, 16)
LINE = 128  # bytes of a row of scores: 32 queries


@v.intrinsic
def softmax_block(typing, scores, rows, scale, oldest, newest, largest, totals, factors, shares):
    """Turn scores [rows, 32 queries] into shares [rows / 2, 16, 2], of the first 16 queries.

    The arguments but rows and scale are addresses. oldest and newest are int32 [16]: the first and
    the last row that a query sees. largest and totals are float32 [16], of all scores so far, and
    updated. factors, float32 [16], is written: it multiplies what was summed before. rows is even.
    Scores are overwritten.
    """

    def generate(context, builder, signature, arguments):
        scores, rows, scale, oldest, newest, largest, totals, factors, shares = arguments
        scale = v.broadcast(builder, scale, 16)
        oldest, newest = (v.load_vector(builder, each, WORDS) for each in (oldest, newest))
        before = v.load_vector(builder, largest, LANES)
        top = cgutils.alloca_once_value(builder, before)
        hidden = v.constant(LANES, -float("inf"))

        def address_of(row: v.Value) -> v.Value:
            return builder.add(scores, builder.mul(row, ir.Constant(v.INT64, LINE)))

        with cgutils.for_range(builder, rows) as loop:
            at = address_of(loop.index)
            score = builder.fmul(v.load_vector(builder, at, LANES), scale)
            row = v.broadcast(builder, builder.trunc(loop.index, v.INT32), 16)
            too_old = builder.icmp_signed("<", row, oldest)
            too_new = builder.icmp_signed(">", row, newest)
            score = builder.select(builder.or_(too_old, too_new), hidden, score)
            v.store_vector(builder, score, at)
            so_far = builder.load(top)
            larger = builder.fcmp_ordered(">", score, so_far)
            builder.store(builder.select(larger, score, so_far), top)

        highest = builder.load(top)
        factor = exponentials(builder, builder.fsub(before, highest))
        total = builder.fmul(v.load_vector(builder, totals, LANES), factor)
        total = cgutils.alloca_once_value(builder, total)
        with cgutils.for_range(builder, builder.sdiv(rows, ir.Constant(v.INT64, 2))) as loop:
            at = address_of(builder.mul(loop.index, ir.Constant(v.INT64, 2)))
            low, high = (
                exponentials(
                    builder, builder.fsub(v.load_vector(builder, at, LANES, offset), highest)
                )
                for offset in (0, LINE)
            )
            builder.store(builder.fadd(builder.load(total), builder.fadd(low, high)), total)
            to = builder.add(shares, builder.mul(loop.index, ir.Constant(v.INT64, 64)))
            v.store_vector(builder, v.pack_bfloat16(builder, low, high), to)
        v.store_vector(builder, highest, largest)
        v.store_vector(builder, builder.load(total), totals)
        v.store_vector(builder, factor, factors)
        return context.get_dummy_value()

    address = types.int64
    given = (address, address, types.float32, *[address] * 6)
    return types.void(*given), generate


@v.intrinsic
def multiply_columns(typing, sums, rows, factors):
    """Multiply each column of sums [rows, 32] by its factor. sums and factors are addresses."""

    def generate(context, builder, signature, arguments):
        sums, rows, factors = arguments
        halves = [(at, v.load_vector(builder, factors, LANES, at)) for at in (0, 64)]
        with cgutils.for_range(builder, rows) as loop:
            line = builder.add(sums, builder.mul(loop.index, ir.Constant(v.INT64, LINE)))
            for offset, factor in halves:
                at = builder.add(line, ir.Constant(v.INT64, offset))
                product = builder.fmul(v.load_vector(builder, at, LANES), factor)
                v.store_vector(builder, product, at)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate
