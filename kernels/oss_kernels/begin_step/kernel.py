"""The start of a decode step in Triton. One program per row of the batch.

    token id, position  ->  x = embedding[id]; cos, sin of the position; slots in the caches;
                            position + 1, for the next step

Everything comes from the device and stays there, so the next step can start without the host: the
last kernel of a step writes the sampled id to `cursor.tokens`, and this one reads it.
"""

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.begin_step.reference import Cursor
from oss_kernels.launch import Launch


@triton.jit
def begin_step_kernel(
    tokens, positions, lengths, full_slots, ring_slots, text, embedding, cos_table, sin_table,
    x, cos, sin, vocab, hidden, capacity, window,
    HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens + row).to(tl.int64)
    position = tl.load(positions + row)
    column = tl.arange(0, COLUMNS)
    within = column < hidden
    # The host does not know the id. For one outside the vocabulary nothing is read, and x is NaN.
    columns = tl.where((token >= 0) & (token < vocab), hidden, 0)
    source = embedding + token * hidden + column
    values = tl.load(source, mask=column < columns, other=float("nan"))
    tl.store(x + row * hidden + column, values, mask=within)
    if position < capacity:  # after the end of the cache nothing is read or written outside it
        pair = tl.arange(0, HEAD_DIM)
        place = position.to(tl.int64) * HEAD_DIM + pair
        tl.store(cos + row * HEAD_DIM + pair, tl.load(cos_table + place))
        tl.store(sin + row * HEAD_DIM + pair, tl.load(sin_table + place))
        tl.store(text + row * capacity + position, token.to(tl.int32))
    # Every warp reads the position for itself. None may find the next one, so all wait here.
    tl.debug_barrier()
    tl.store(full_slots + row, position)
    tl.store(ring_slots + row, position % window)
    tl.store(lengths + row, position + 1)
    tl.store(positions + row, position + 1)


def launch(
    cursor: Cursor,
    embedding: Tensor,
    cos_table: Tensor,
    sin_table: Tensor,
    window: int,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> Launch:
    """The launch: one program per row. All tensors are contiguous; the cursor's are int32.

    head_dim is a power of two. cos, sin and their tables have one dtype, and so have x and the
    embedding.
    """
    (batch, hidden), head_dim, vocab = x.shape, cos.shape[1], len(embedding)
    columns = triton.next_power_of_2(hidden)
    return Launch(
        begin_step_kernel,
        (batch,),
        vars(cursor)
        | {"embedding": embedding, "cos_table": cos_table, "sin_table": sin_table}
        | {"x": x, "cos": cos, "sin": sin, "vocab": vocab, "hidden": hidden}
        | {"capacity": cursor.text.shape[1], "window": window},
        {"HEAD_DIM": head_dim, "COLUMNS": columns},
        num_warps=max(1, min(8, columns // 512)),
    )
