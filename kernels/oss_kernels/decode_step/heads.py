"""Products of one head's vectors: scores of keys, and the weighted sum of values.

A head is one LLVM vector, which LLVM splits over as many registers as it needs. head_dim is a
compile-time constant for this reason. Keys and values are read in the type in which they are
stored; the sums are float32.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v


def load_head(builder: v.Builder, address: v.Value, head_dim: int, dtype: types.Type) -> v.Value:
    """A head's vector at an address, as float32; uint16 contains bfloat16."""
    if dtype != types.uint16:
        return v.load_vector(builder, address, v.vector(v.FLOAT, head_dim))
    words = v.load_vector(builder, address, v.vector(v.INT16, head_dim))
    wide = builder.zext(words, v.vector(v.INT32, head_dim))
    bits = builder.shl(wide, v.constant(wide.type, 16))
    return builder.bitcast(bits, v.vector(v.FLOAT, head_dim))


@v.intrinsic(prefer_literal=True)
def score_keys(typing, head_dim, group, queries, keys, like, count, scores, stride, tops):
    """scores[head, key] = query · key, for a group of query heads and `count` neighboring keys.

    head_dim and group are compile-time constants. queries (float32 [group head_dim]), keys (dtype
    of `like` [count head_dim]), scores (float32 [group stride]) and tops (float32 [group]) are
    addresses. tops[head] becomes the largest of itself and the new scores.
    """
    dim, heads = head_dim.literal_value, group.literal_value

    def generate(context, builder, signature, arguments):
        _, _, queries, keys, _, count, scores, stride, tops = arguments
        kind = v.vector(v.FLOAT, dim)
        step = ir.Constant(v.INT64, dim * like.bitwidth // 8)
        pointers = [
            builder.inttoptr(
                builder.add(tops, ir.Constant(v.INT64, 4 * head)), v.FLOAT.as_pointer()
            )
            for head in range(heads)
        ]
        highest = [cgutils.alloca_once_value(builder, builder.load(each)) for each in pointers]
        with cgutils.for_range(builder, count) as loop:
            key = load_head(builder, builder.add(keys, builder.mul(loop.index, step)), dim, like)
            for head in range(heads):
                query = v.load_vector(builder, queries, kind, 4 * dim * head)
                row = builder.mul(stride, ir.Constant(v.INT64, head))
                place = builder.mul(builder.add(row, loop.index), ir.Constant(v.INT64, 4))
                pointer = builder.inttoptr(builder.add(scores, place), v.FLOAT.as_pointer())
                score = v.sum_lanes(builder, builder.fmul(query, key))
                builder.store(score, pointer)
                top = builder.load(highest[head])
                is_higher = builder.fcmp_ordered(">", score, top)
                builder.store(builder.select(is_higher, score, top), highest[head])
        for pointer, top in zip(pointers, highest, strict=True):
            builder.store(builder.load(top), pointer)
        return context.get_dummy_value()

    number = types.int64
    numbers = (number, number, number, number)
    return types.void(head_dim, group, number, number, like, *numbers), generate


@v.intrinsic(prefer_literal=True)
def add_values(typing, head_dim, shares, values, like, count, total):
    """total += the sum of `count` neighboring values, each times its share.

    head_dim is a compile-time constant. shares (float32 [count]), values (of the type of `like`,
    [count head_dim]) and total (float32 [head_dim]) are addresses.
    """
    dim = head_dim.literal_value

    def generate(context, builder, signature, arguments):
        _, shares, values, _, count, total = arguments
        kind = v.vector(v.FLOAT, dim)
        step = ir.Constant(v.INT64, dim * like.bitwidth // 8)
        running = cgutils.alloca_once_value(builder, v.load_vector(builder, total, kind))
        with cgutils.for_range(builder, count) as loop:
            place = builder.mul(loop.index, ir.Constant(v.INT64, 4))
            pointer = builder.inttoptr(builder.add(shares, place), v.FLOAT.as_pointer())
            share = v.broadcast(builder, builder.load(pointer), dim)
            address = builder.add(values, builder.mul(loop.index, step))
            value = load_head(builder, address, dim, like)
            builder.store(v.multiply_add(builder, share, value, builder.load(running)), running)
        pointer = builder.inttoptr(total, kind.as_pointer())
        builder.store(builder.load(running), pointer, align=4)
        return context.get_dummy_value()

    number = types.int64
    return types.void(head_dim, number, number, like, number, number), generate
