"""Arrays at an address: a plan stores the place of every weight and buffer as an integer."""

from llvmlite import ir
from numba import types
from numba.np.arrayobj import make_array, populate_array

from oss_kernels.cpu import vectors as v


@v.intrinsic
def vector_at(typing, address, count, like):
    """The `count` numbers at an address, in the dtype of the number `like`. Nothing is copied."""
    array = types.Array(like, 1, "C")

    def generate(context, builder, signature, arguments):
        address, count, _ = arguments
        size = ir.Constant(v.INT64, like.bitwidth // 8)
        made = make_array(array)(context, builder)
        populate_array(
            made,
            data=builder.inttoptr(address, context.get_data_type(like).as_pointer()),
            shape=[count],
            strides=[size],
            itemsize=size,
            meminfo=None,
        )
        return made._getvalue()

    return array(types.int64, types.int64, like), generate
