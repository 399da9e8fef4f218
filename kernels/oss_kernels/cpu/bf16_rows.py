"""A row of bfloat16 weights times a vector, summed in float32.

A bfloat16 is the upper half of a float32. Two neighbors are loaded as one 32-bit word. A shift
converts the even one to float32, a mask the odd one. So activations are stored as 16 even elements,
then 16 odd ones.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v

CHUNK = 64  # weights per step: two loads, and four sums that do not wait for each other
ORDER = tuple(32 * half + 2 * lane + odd for half in (0, 1) for odd in (0, 1) for lane in range(16))


@v.intrinsic
def bfloat16_product(typing, x, weights, columns):
    """The product of a row with activations, as float32. columns must be at least CHUNK.

    x and weights are addresses; `arrange` wrote x with ORDER. If columns do not fill the last
    chunk, it starts earlier, and the activations that an earlier chunk contains are zero in it.
    """

    def generate(context, builder, signature, arguments):
        x, weights, columns = arguments
        lanes, size = v.vector(v.FLOAT, 16), ir.Constant(v.INT64, CHUNK)
        sums = [cgutils.alloca_once_value(builder, v.zeros(lanes)) for _ in range(4)]

        def add_chunk(number: v.Value, first: v.Value) -> None:
            chunk = builder.add(weights, builder.mul(first, ir.Constant(v.INT64, 2)))
            activations = builder.add(x, builder.mul(number, ir.Constant(v.INT64, 4 * CHUNK)))
            for half in (0, 1):
                line = builder.add(chunk, ir.Constant(v.INT64, 64 * half))
                v.prefetch(builder, line)
                words = v.load_vector(builder, line, v.vector(v.INT16, 32))
                for odd, weight in enumerate(v.widen(builder, words)):
                    at = 2 * half + odd
                    own = v.load_vector(builder, activations, lanes, 64 * at)
                    new = v.multiply_add(builder, weight, own, builder.load(sums[at]))
                    builder.store(new, sums[at])

        full = builder.sdiv(columns, size)
        with cgutils.for_range(builder, full) as loop:
            add_chunk(loop.index, builder.mul(loop.index, size))
        rest = builder.icmp_signed("!=", builder.mul(full, size), columns)
        with builder.if_then(rest, likely=False):
            add_chunk(full, builder.sub(columns, size))
        a, b, c, d = (builder.load(each) for each in sums)
        return v.sum_lanes(builder, builder.fadd(builder.fadd(a, b), builder.fadd(c, d)))

    return types.float32(types.int64, types.int64, types.int64), generate
