"""The inner loops of attention, for a kv head and its group of query heads.

A key, a value or a query is one LLVM vector of head_dim numbers, which LLVM splits over as many
registers as it needs. So head_dim and group are compile-time constants. Each key and each value is
loaded once for all heads of the group, or for SHARING of them. Scores are [key, lanes], with a
lane for each head: `count_lanes` of them, a power of two.

The sums over a block of keys start at zero and are added to the totals at its end. Adding thousands
of keys to one float32 one by one would lose more digits.
"""

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils

from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.exponential import exponentials

SHARING = 4  # heads whose sums of values fit in registers together


def count_lanes(group: int) -> int:
    """The smallest power of two that is not below `group`.

    >>> count_lanes(5)
    8
    """
    return 1 << (group - 1).bit_length()


def load_head(builder: v.Builder, address: v.Value, head_dim: int, dtype: types.Type) -> v.Value:
    """A head's vector at an address, as float32; uint16 contains bfloat16."""
    if dtype != types.uint16:
        return v.load_vector(builder, address, v.vector(v.FLOAT, head_dim))
    words = v.load_vector(builder, address, v.vector(v.INT16, head_dim))
    wide = builder.zext(words, v.vector(v.INT32, head_dim))
    bits = builder.shl(wide, v.constant(wide.type, 16))
    return builder.bitcast(bits, v.vector(v.FLOAT, head_dim))


def find_element(builder: v.Builder, address: v.Value, index: v.Value, size: int) -> v.Value:
    """The address of element `index` of an array with elements of `size` bytes."""
    return builder.add(address, builder.mul(index, ir.Constant(v.INT64, size)))


def sum_each(builder: v.Builder, vectors: Sequence[v.Value]) -> v.Value:
    """The lane sums of several vectors, as one vector. Their number is a power of two.

    Each step adds the two halves of all vectors, and puts two neighbors into one vector, until one
    vector is left: (a0 a1 a2 a3), (b0 b1 b2 b3) -> (a0+a2, a1+a3, b0+b2, b1+b3) -> (a, b). A vector
    must not have fewer lanes than there are vectors.
    """
    lanes = vectors[0].type.count
    size = lanes  # of the part that belongs to one of the given vectors
    while size > 1:
        pairs = (
            list(zip(vectors[::2], vectors[1::2], strict=True))
            if vectors[1:]
            else [(vectors[0], vectors[0])]
        )
        total = vectors[0].type.count * (2 if vectors[1:] else 1)
        low = [part + i for part in range(0, total, size) for i in range(size // 2)]
        index = v.vector(v.INT32, len(low))
        halves = [
            [builder.shuffle_vector(a, b, v.constant(index, picked)) for a, b in pairs]
            for picked in (low, [lane + size // 2 for lane in low])
        ]
        vectors = [builder.fadd(a, b) for a, b in zip(*halves, strict=True)]
        size //= 2
    return vectors[0]


@v.intrinsic(prefer_literal=True)
def score_keys(typing, head_dim, group, queries, keys, like, count, scores, tops):
    """scores[key, head] = query · key, for `count` neighboring keys.

    queries (float32 [group head_dim]), keys (of the type of `like`, [count head_dim]), scores and
    tops (float32 [lanes]) are addresses. tops[head] becomes the largest of itself and the scores.
    """
    dim, heads = head_dim.literal_value, group.literal_value
    width = min(dim, 16)  # lanes that are added before the lanes of a vector are
    lanes = count_lanes(heads)

    def generate(context, builder, signature, arguments):
        _, _, queries, keys, _, count, scores, tops = arguments
        highest = cgutils.alloca_once_value(
            builder, v.load_vector(builder, tops, v.vector(v.FLOAT, lanes))
        )

        def multiply(key: v.Value, head: int) -> v.Value:
            """The products of a query and a key, in `width` lanes."""
            kind = v.vector(v.FLOAT, width)
            total: v.Value = v.zeros(kind)
            for first in range(0, dim, width):
                query = v.load_vector(builder, queries, kind, 4 * (dim * head + first))
                part = v.pick_lanes(builder, key, range(first, first + width))
                total = v.multiply_add(builder, query, part, total)
            return total

        with cgutils.for_range(builder, count) as loop:
            at = find_element(builder, keys, loop.index, dim * like.bitwidth // 8)
            key = load_head(builder, at, dim, like)
            products = [multiply(key, head) for head in range(heads)]
            products += [products[0]] * (lanes - heads)
            score = sum_each(builder, products)
            at = find_element(builder, scores, loop.index, 4 * lanes)
            v.store_vector(builder, score, at)
            is_higher = builder.fcmp_ordered(">", score, builder.load(highest))
            builder.store(builder.select(is_higher, score, builder.load(highest)), highest)
        v.store_vector(builder, builder.load(highest), tops)
        return context.get_dummy_value()

    number = types.int64
    return types.void(head_dim, group, number, number, like, number, number, number), generate


@v.intrinsic(prefer_literal=True)
def exponentiate(typing, group, scores, count, tops, totals):
    """Replace each score by exp(score - top) and add it to its head's total. All are addresses."""
    kind = v.vector(v.FLOAT, count_lanes(group.literal_value))

    def generate(context, builder, signature, arguments):
        _, scores, count, tops, totals = arguments
        top = v.load_vector(builder, tops, kind)
        total = cgutils.alloca_once_value(builder, v.zeros(kind))
        with cgutils.for_range(builder, count) as loop:
            address = find_element(builder, scores, loop.index, 4 * kind.count)
            score = v.load_vector(builder, address, kind)
            share = exponentials(builder, builder.fsub(score, top))
            v.store_vector(builder, share, address)
            builder.store(builder.fadd(builder.load(total), share), total)
        before = v.load_vector(builder, totals, kind)
        v.store_vector(builder, builder.fadd(before, builder.load(total)), totals)
        return context.get_dummy_value()

    number = types.int64
    return types.void(group, number, number, number, number), generate


@v.intrinsic(prefer_literal=True)
def add_values(typing, head_dim, group, shares, values, like, count, totals):
    """totals[head] += the sum of `count` neighboring values, each times its share.

    shares (float32 [count lanes]), values (of the type of `like`, [count head_dim]) and totals
    (float32 [group head_dim]) are addresses.
    """
    dim, heads = head_dim.literal_value, group.literal_value
    lanes, kind = count_lanes(heads), v.vector(v.FLOAT, dim)

    def generate(context, builder, signature, arguments):
        _, _, shares, values, _, count, totals = arguments

        def add_for(first: int, end: int) -> None:
            """For the heads first ... end - 1."""
            sums = [cgutils.alloca_once_value(builder, v.zeros(kind)) for _ in range(first, end)]
            with cgutils.for_range(builder, count) as loop:
                at = find_element(builder, values, loop.index, dim * like.bitwidth // 8)
                value = load_head(builder, at, dim, like)
                row = find_element(builder, shares, loop.index, 4 * lanes)
                for head, total in enumerate(sums, start=first):
                    own = v.load_vector(builder, row, v.vector(v.FLOAT, 1), 4 * head)
                    share = v.pick_lanes(builder, own, [0] * dim)
                    new = v.multiply_add(builder, share, value, builder.load(total))
                    builder.store(new, total)
            for head, total in enumerate(sums, start=first):
                at = builder.add(totals, ir.Constant(v.INT64, 4 * dim * head))
                before = v.load_vector(builder, at, kind)
                v.store_vector(builder, builder.fadd(before, builder.load(total)), at)

        for first in range(0, heads, SHARING):
            add_for(first, min(first + SHARING, heads))
        return context.get_dummy_value()

    number = types.int64
    return types.void(head_dim, group, number, number, like, number, number), generate
