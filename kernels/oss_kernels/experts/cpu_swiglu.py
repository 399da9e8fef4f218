"""SwiGLU of a block of sums on the CPU, written in the order in which AMX reads activations."""

from numba import types

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.exponential import exponential

LANES = v.vector(v.FLOAT, 16)  # tokens
BITS = v.vector(v.INT32, 16)


def swiglu(builder: v.Builder, gate: v.Value, up: v.Value, alpha: v.Value, limit: v.Value):
    """As `cpu_rows.swiglu`, for vectors."""
    one = v.constant(LANES, 1.0)
    gate = builder.select(builder.fcmp_ordered(">", gate, limit), limit, gate)
    up = builder.select(builder.fcmp_ordered(">", up, limit), limit, up)
    least = builder.fneg(limit)
    up = builder.select(builder.fcmp_ordered("<", up, least), least, up)
    small = exponential(builder, builder.fneg(builder.fmul(alpha, gate)))
    share = builder.fdiv(one, builder.fadd(one, small))
    return builder.fmul(builder.fmul(gate, share), builder.fadd(up, one))


def round_to_bfloat16(builder: v.Builder, value: v.Value) -> v.Value:
    """The nearest bfloat16, ties to even, in the low half of each 32-bit lane."""
    bits = builder.bitcast(value, BITS)
    upper = builder.lshr(bits, v.constant(BITS, 16))
    odd = builder.and_(upper, v.constant(BITS, 1))
    bits = builder.add(bits, builder.add(odd, v.constant(BITS, 0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", value, value)
    rounded = builder.lshr(bits, v.constant(BITS, 16))
    return builder.select(is_nan, v.constant(BITS, 0x7FC0), rounded)


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
        low, high = (
            round_to_bfloat16(builder, swiglu(builder, *pair, alpha, limit))
            for pair in (rows[:2], rows[2:])
        )
        words = builder.or_(low, builder.shl(high, v.constant(BITS, 16)))
        builder.store(words, builder.inttoptr(out, BITS.as_pointer()), align=4)
        return context.get_dummy_value()

    number, address = types.float32, types.int64
    given = (address, address, types.UniTuple(number, 4), number, number, address)
    return types.void(*given), generate
