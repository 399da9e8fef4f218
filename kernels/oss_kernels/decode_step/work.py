"""Divides a step among threads: phases, each a number of items that any thread may compute.

A thread claims the next item of a phase with an atomic counter, until none is left. Then it waits
until the items that others have claimed are done, and enters the next phase. So no thread ever
waits for one that has not started: with fewer threads than expected, those that run do all of the
work. This also evens out threads that other programs slow down.

One thread runs the same code. It never waits, and claiming an item takes a few nanoseconds.
"""

import os
import platform

import torch
from jaxtyping import Int
from llvmlite import ir
from numba import njit, types
from torch import Tensor

from oss_kernels.cpu import vectors as v

PAUSES = 1000  # tens of microseconds; a waiting thread then lets others run
LINE = 128  # bytes per counter: two cache lines, so counters do not slow each other down


def empty_counters(*phases: int) -> Int[Tensor, "*phases counters"]:
    """Counters of items claimed and items done, for each phase. Zero them before each step."""
    return torch.zeros(*phases, 2 * LINE // 8, dtype=torch.int64)


@v.intrinsic
def add_atomically(typing, address, amount):
    """Add to the int64 at an address; return what it was before."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], v.INT64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@v.intrinsic
def load_atomically(typing, address):
    """The int64 at an address. Nothing that follows is read earlier."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], v.INT64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@v.intrinsic
def pause(typing):
    """Let the core's other hardware thread run for a moment, while this one waits in a loop."""

    def generate(context, builder, signature, arguments):
        if platform.machine().lower() in ("x86_64", "amd64"):
            v.call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), generate


@v.intrinsic
def let_others_run(typing):
    """Let another thread have this core, which may be the one that this thread waits for."""

    def generate(context, builder, signature, arguments):
        if os.name == "posix":
            v.call(builder, "sched_yield", v.INT32)
        return context.get_dummy_value()

    return types.void(), generate


@njit(nogil=True)
def claim(counters):
    """The number of the next item of a phase. If it is the phase's count or more, none is left."""
    return add_atomically(counters, 1)


@njit(nogil=True)
def finish(counters, mine, items):
    """Report `mine` items as done; return when all `items` of the phase are."""
    add_atomically(counters + LINE, mine)
    pauses = 0
    while load_atomically(counters + LINE) < items:
        pause()
        pauses += 1
        if pauses % PAUSES == 0:
            let_others_run()


@njit(nogil=True)
def count_rows(rows, threads):
    """How many of a matrix's rows an item has: 16 items per thread, of at least 8 rows each.

    Neighboring rows are read from memory without gaps, so fewer, larger items are faster. More,
    smaller ones divide the work more evenly.
    """
    return max(8, -(-rows // (16 * threads)))
