"""SwiGLU on the CPU: of one unit, and of a block of sums in the order in which AMX reads."""

import numpy as np
from numba import njit, types

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.exponential import exponential, exponentials

LANES = v.vector(v.FLOAT, 16)  # tokens


@njit(nogil=True, error_model="numpy")
def swiglu(gate, up, alpha, limit):
    """gate * sigmoid(alpha * gate) * (up + 1). NaN stays NaN, as comparisons with it are false."""
    one = np.float32(1)
    if gate > limit:
        gate = limit
    if up > limit:
        up = limit
    if up < -limit:
        up = -limit
    return gate / (one + exponential(-alpha * gate)) * (up + one)


def swiglus(builder: v.Builder, gate: v.Value, up: v.Value, alpha: v.Value, limit: v.Value):
    """`swiglu` of each lane."""
    one = v.constant(LANES, 1.0)
    gate = builder.select(builder.fcmp_ordered(">", gate, limit), limit, gate)
    up = builder.select(builder.fcmp_ordered(">", up, limit), limit, up)
    least = builder.fneg(limit)
    up = builder.select(builder.fcmp_ordered("<", up, least), least, up)
    small = exponentials(builder, builder.fneg(builder.fmul(alpha, gate)))
    share = builder.fdiv(one, builder.fadd(one, small))
    return builder.fmul(builder.fmul(gate, share), builder.fadd(up, one))


@v.intrinsic
def swiglu_pair(typing, sums, stride, biases, alpha, limit, out):
    """Two units of 16 tokens, to 16 words with two bfloat16 each.

    sums and out are addresses. Rows of sums, gate, up, gate and up, are `stride` bytes apart.
    biases is a tuple of four.
    """

    def generate(context, builder, signature, arguments):
        sums, stride, biases, alpha, limit, out = arguments
        alpha, limit = (v.broadcast(builder, each, 16) for each in (alpha, limit))
        rows = []
        for n in range(4):
            bias = v.broadcast(builder, builder.extract_value(biases, n), 16)
            rows.append(builder.fadd(v.load_vector(builder, sums, LANES), bias))
            sums = builder.add(sums, stride)
        low = swiglus(builder, rows[0], rows[1], alpha, limit)
        high = swiglus(builder, rows[2], rows[3], alpha, limit)
        v.store_vector(builder, v.pack_bfloat16(builder, low, high), out)
        return context.get_dummy_value()

    number, address = types.float32, types.int64
    given = (address, address, types.UniTuple(number, 4), number, number, address)
    return types.void(*given), generate
