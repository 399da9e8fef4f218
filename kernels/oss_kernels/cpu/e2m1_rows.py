"""A row of MXFP4 weights times the activations of one or several tokens.

Weights are decoded once for all these tokens. `e2m1_layouts` defines the order of activations. A
group's scale multiplies the sum over the group. All sums are float32.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.e2m1_layouts import LAYOUTS
from oss_kernels.cpu.e8m0_scales import any_scales, are_ordinary, ordinary_scales

GROUP_BYTES = 16

ScalesOf = Callable[[v.Builder, v.Value, int, int], v.Value]


@v.intrinsic(prefer_literal=True)
def row_products(typing, path, activations, blocks, scales, groups):
    """The products of a row with each token's activations: a tuple of float32.

    `path` is a compile-time constant. groups is the number of groups in the row, at least one
    chunk. The other arguments are addresses; activations is a tuple with one address per token,
    written by `arrange`. If groups do not fill the last chunk, it starts earlier and repeats some
    of them, whose activations are zero there.
    """
    layout, tokens = LAYOUTS[path.literal_value], len(activations)
    step = layout.elements * layout.bits // 8

    def generate(context, builder, signature, arguments):
        _, activations, blocks, scales, groups = arguments
        size = ir.Constant(v.INT64, layout.groups)
        kind = v.vector(v.FLOAT, layout.lanes)
        starts = cgutils.unpack_tuple(builder, activations, tokens)
        sums = [cgutils.alloca_once_value(builder, v.zeros(kind)) for _ in starts]
        full = builder.sdiv(groups, size)
        rest = builder.icmp_signed("!=", builder.mul(full, size), groups)

        def add_chunk(number: v.Value, first: v.Value, scales_of: ScalesOf) -> None:
            chunk = builder.add(blocks, builder.mul(first, ir.Constant(v.INT64, GROUP_BYTES)))
            v.prefetch(builder, chunk)
            weights = layout.decode(builder, chunk)
            scale = scales_of(builder, builder.add(scales, first), layout.groups, layout.lanes)
            at = builder.mul(number, ir.Constant(v.INT64, step))
            for start, total in zip(starts, sums, strict=True):
                products = layout.multiply(builder, weights, builder.add(start, at))
                builder.store(v.multiply_add(builder, products, scale, builder.load(total)), total)

        def add_row(scales_of: ScalesOf) -> None:
            with cgutils.for_range(builder, full) as loop:
                add_chunk(loop.index, builder.mul(loop.index, size), scales_of)
            with builder.if_then(rest, likely=False):
                add_chunk(full, builder.sub(groups, size), scales_of)

        ordinary = are_ordinary(builder, scales, groups)
        with builder.if_else(ordinary, likely=True) as (quickly, with_care):
            with quickly:
                add_row(ordinary_scales)
            with with_care:
                add_row(any_scales)
        results = [v.sum_lanes(builder, builder.load(total)) for total in sums]
        return context.make_tuple(builder, signature.return_type, results)

    address = types.int64
    result = types.UniTuple(types.float32, tokens)
    return result(path, activations, address, address, address), generate
