"""The shared scales of MXFP4 groups as float32: byte u encodes 2^(u - 127).

u << 23 gives the bits of that float, except for 0 (2^-127 is a subnormal) and 255 (NaN). Few rows
contain either, so a row's scales are checked once. Only rows that contain them, and short rows, use
the slower conversion.
"""

from llvmlite import ir
from numba.core import cgutils

from oss_kernels.cpu import vectors as v

LOOK = v.vector(v.INT8, 16)


def are_ordinary(builder: v.Builder, address: v.Value, count: v.Value, margin: int = 1) -> v.Value:
    """Whether none of `count` bytes is above 255 - margin or below margin.

    False if count is smaller than LOOK.
    """
    size = ir.Constant(v.INT64, LOOK.count)
    lowest = cgutils.alloca_once_value(builder, v.constant(LOOK, 255))

    def look(first: v.Value) -> None:
        # With a margin of one, adding it turns 255 and 0 into 0 and 1, the two smallest values.
        turned = builder.add(
            v.load_vector(builder, builder.add(address, first), LOOK), v.constant(LOOK, margin)
        )
        builder.store(v.minimum(builder, builder.load(lowest), turned), lowest)

    enough = builder.icmp_signed(">=", count, size)
    with builder.if_then(enough, likely=True):
        with cgutils.for_range(builder, builder.sdiv(count, size)) as loop:
            look(builder.mul(loop.index, size))
        look(builder.sub(count, size))
    special = builder.icmp_unsigned("<", builder.load(lowest), v.constant(LOOK, 2 * margin))
    flags = ir.IntType(LOOK.count)
    none = builder.icmp_unsigned("==", builder.bitcast(special, flags), ir.Constant(flags, 0))
    return builder.and_(enough, none)


def ordinary_scales(builder: v.Builder, address: v.Value, groups: int, lanes: int) -> v.Value:
    """The scales of `groups` groups, each in lanes / groups neighboring lanes; none is 0 or 255."""
    return builder.bitcast(_bits(builder, address, groups, lanes), v.vector(v.FLOAT, lanes))


def any_scales(builder: v.Builder, address: v.Value, groups: int, lanes: int) -> v.Value:
    """Like `ordinary_scales`, for any bytes."""
    bits = _bits(builder, address, groups, lanes)
    infinite = v.constant(bits.type, 0x7F800000)  # what 255 << 23 is
    is_nan = builder.icmp_unsigned("==", bits, infinite)
    bits = v.maximum(builder, bits, v.constant(bits.type, 0x00400000))  # 0 becomes 2^-127
    bits = builder.select(is_nan, v.constant(bits.type, 0x7FC00000), bits)
    return builder.bitcast(bits, v.vector(v.FLOAT, lanes))


def _bits(builder: v.Builder, address: v.Value, groups: int, lanes: int) -> v.Value:
    octets = v.load_vector(builder, address, v.vector(v.INT8, groups))
    octets = v.pick_lanes(builder, octets, [lane * groups // lanes for lane in range(lanes)])
    kind = v.vector(v.INT32, lanes)
    return builder.shl(builder.zext(octets, kind), v.constant(kind, 23))
