"""A decode step from end to end: the order of its phases, and the compiled function."""

from functools import cache

from numba import njit, prange
from numba.extending import overload

from oss_kernels.cpu.machine import InstructionSet
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.decode_step import table as at
from oss_kernels.decode_step.dense import multiply_without_bias
from oss_kernels.decode_step.expert_phases import (
    choose,
    finish_experts,
    normalize_for_experts,
    project_router,
    start_experts,
)
from oss_kernels.decode_step.experts import COMPILED
from oss_kernels.decode_step.memory import vector_at
from oss_kernels.decode_step.phases import (
    FLOAT,
    INT,
    attend_with_all,
    normalize,
    project_out,
    project_qkv,
    start_layer,
)
from oss_kernels.decode_step.work import claim, count_rows, finish


@njit(nogil=True)
def normalize_last(t, like):
    """Phase 0 of the last row, one item: the final norm."""
    done = 0
    if claim(t[at.COUNTERS + 0]) == 0:
        normalize(t, like, t[at.NORM])
        done = 1
    finish(t[at.COUNTERS + 0], done, 1)


@njit(nogil=True)
def unembed(t, threads, logits):
    """Phase 1 of the last row: rows of the unembedding."""
    x = vector_at(t[at.DENSE_INPUT], t[at.DENSE_SIZE], FLOAT)
    rows = count_rows(logits.size, threads)
    items, done = -(-logits.size // rows), 0
    item = claim(t[at.COUNTERS + 1])
    while item < items:
        first, end = item * rows, min((item + 1) * rows, logits.size)
        matrix_at, columns, like = t[at.UNEMBEDDING], t[at.HIDDEN], logits[0]
        multiply_without_bias(x, matrix_at, columns, like, first, end, logits)
        done += 1
        item = claim(t[at.COUNTERS + 1])
    finish(t[at.COUNTERS + 1], done, items)


def run_phases(path, head_dim, group, table_at, layers, threads, token, length, like, logits_at):
    """All phases of a step, as one of `threads` threads. The first three are constants."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(run_phases, prefer_literal=True, jit_options=COMPILED)
def _run_phases(path, head_dim, group, table_at, layers, threads, token, length, like, logits_at):
    its_path, dim, heads = path.literal_value, head_dim.literal_value, group.literal_value

    def run_phases(
        path, head_dim, group, table_at, layers, threads, token, length, like, logits_at
    ):
        for layer in range(layers):
            t = vector_at(table_at + 8 * at.COLUMNS * layer, at.COLUMNS, INT)
            start_layer(t, like, layer, token)
            project_qkv(t, like, threads)
            attend_with_all(dim, heads, t, like, length)
            project_out(t, like, threads)
            normalize_for_experts(its_path, t, like)
            project_router(t, like, threads)
            choose(t)
            start_experts(its_path, t, like, threads)
            finish_experts(its_path, t, like, threads)
        t = vector_at(table_at + 8 * at.COLUMNS * layers, at.COLUMNS, INT)
        normalize_last(t, like)
        unembed(t, threads, vector_at(logits_at, t[at.VOCAB], like))

    return run_phases


@cache
def compile_alone(path: InstructionSet, head_dim: int, group: int):
    """The compiled step on one thread: run(table, counters, threads, token, length, logits).

    `length` is the slot of the new token in the cache, and its position. The logits have the
    model's dtype.
    """
    sources = fingerprint("decode_step")

    @njit(nogil=True, cache=True)
    def run(table, counters, threads, token, length, logits):
        _ = sources  # makes numba recompile when a file in these folders changes
        counters[:] = 0
        begin, layers, out = table.ctypes.data, len(table) - 1, logits.ctypes.data
        run_phases(path, head_dim, group, begin, layers, 1, token, length, logits[0], out)

    return run


@cache
def compile_together(path: InstructionSet, head_dim: int, group: int):
    """`compile_alone` for several threads, which all run the same phases."""
    sources = fingerprint("decode_step")

    @njit(parallel=True, nogil=True, cache=True)
    def run(table, counters, threads, token, length, logits):
        _ = sources  # makes numba recompile when a file in these folders changes
        counters[:] = 0
        begin, layers = table.ctypes.data, len(table) - 1
        out, like = logits.ctypes.data, logits[0]
        for _thread in prange(threads):
            run_phases(path, head_dim, group, begin, layers, threads, token, length, like, out)

    return run
