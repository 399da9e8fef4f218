"""The phases of a layer's experts: norm, router, choice and the two matrices of each expert.

As in `phases`. `path` is the instruction set of the experts, a compile-time constant.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.e2m1_layouts import GROUP, LAYOUTS
from oss_kernels.cpu.e2m1_rows import GROUP_BYTES
from oss_kernels.cpu.numbers import load_float32, round_as, store_exactly
from oss_kernels.decode_step import table as at
from oss_kernels.decode_step.dense import row_product
from oss_kernels.decode_step.experts import COMPILED, add_down, gate_and_up
from oss_kernels.decode_step.memory import vector_at
from oss_kernels.decode_step.phases import FLOAT, INT, normalize
from oss_kernels.decode_step.rms_norm import rms_norm
from oss_kernels.decode_step.router import choose_experts, weigh_experts
from oss_kernels.decode_step.work import claim, count_rows, finish

TYPES = {16: np.uint16(0), 32: np.float32(0)}
"""A number of the type in which a path wants activations, by its bits."""


def normalize_for_experts(path, t, like):
    """Phase 4, one item: the norm before the experts, for the router and for the experts."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(normalize_for_experts, prefer_literal=True, jit_options=COMPILED)
def _normalize_for_experts(path, t, like):
    kept = TYPES[LAYOUTS[path.literal_value].bits]

    def normalize_for_experts(path, t, like):
        done = 0
        if claim(t[at.COUNTERS + 4]) == 0:
            normalize(t, like, t[at.MOE_NORM])
            x = vector_at(t[at.STREAM], t[at.HIDDEN], like)
            scale = vector_at(t[at.MOE_NORM], x.size, like)
            out = vector_at(t[at.EXPERT_INPUT], t[at.EXPERT_SIZE], kept)
            places = vector_at(t[at.EXPERT_PLACES], x.size, INT)
            rms_norm(x, scale, vector_at(t[at.CONSTANTS], 3, FLOAT)[0], out, places)
            done = 1
        finish(t[at.COUNTERS + 4], done, 1)

    return normalize_for_experts


@njit(nogil=True)
def project_router(t, like, threads):
    """Phase 5: rows of the router. Logits are float32."""
    count = t[at.EXPERTS]
    x = vector_at(t[at.DENSE_INPUT], t[at.DENSE_SIZE], FLOAT)
    bias = vector_at(t[at.ROUTER_BIAS], count, like)
    out = vector_at(t[at.ROUTER_LOGITS], count, FLOAT)
    rows = count_rows(count, threads)
    items, done = -(-count // rows), 0
    item = claim(t[at.COUNTERS + 5])
    while item < items:
        for row in range(item * rows, min((item + 1) * rows, count)):
            product = row_product(x, t[at.ROUTER], row, t[at.HIDDEN], like)
            out[row] = product + load_float32(bias, row)
        done += 1
        item = claim(t[at.COUNTERS + 5])
    finish(t[at.COUNTERS + 5], done, items)


@njit(nogil=True)
def choose(t):
    """Phase 6, one item: the chosen experts and their weights."""
    done = 0
    if claim(t[at.COUNTERS + 6]) == 0:
        logits = vector_at(t[at.ROUTER_LOGITS], t[at.EXPERTS], FLOAT)
        ids = vector_at(t[at.EXPERT_IDS], t[at.SLOTS], INT)
        vector_at(t[at.MARGIN], 1, FLOAT)[0] = choose_experts(logits, ids)
        weigh_experts(logits, ids, vector_at(t[at.EXPERT_WEIGHTS], t[at.SLOTS], FLOAT))
        done = 1
    finish(t[at.COUNTERS + 6], done, 1)


def start_experts(path, t, like, threads):
    """Phase 7: units of the chosen experts' first matrices, from EXPERT_INPUT to ACTIVATIONS."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(start_experts, prefer_literal=True, jit_options=COMPILED)
def _start_experts(path, t, like, threads):
    its_path = path.literal_value
    kept = TYPES[LAYOUTS[its_path].bits]

    def start_experts(path, t, like, threads):
        width, groups = t[at.WIDTH], t[at.HIDDEN] // GROUP
        ids = vector_at(t[at.EXPERT_IDS], t[at.SLOTS], INT)
        places = vector_at(t[at.WIDTH_PLACES], width, INT)
        constants = vector_at(t[at.CONSTANTS], 3, FLOAT)
        units = count_rows(t[at.SLOTS] * width, threads)
        parts = -(-width // units)  # per expert
        items, done = t[at.SLOTS] * parts, 0
        item = claim(t[at.COUNTERS + 7])
        while item < items:
            slot, first = item // parts, item % parts * units
            before = ids[slot] * 2 * width  # rows of the experts before this one
            bias = vector_at(t[at.GATE_UP_BIAS], (ids[slot] + 1) * 2 * width, like)[before:]
            size = t[at.ACTIVATION_SIZE]
            gate_and_up(
                its_path,
                t[at.EXPERT_INPUT],
                t[at.GATE_UP_BLOCKS] + before * groups * GROUP_BYTES,
                t[at.GATE_UP_SCALES] + before * groups,
                groups,
                bias,
                first,
                min(first + units, width),
                constants[1],
                constants[2],
                vector_at(t[at.ACTIVATIONS], t[at.SLOTS] * size, kept)[slot * size :],
                places,
            )
            done += 1
            item = claim(t[at.COUNTERS + 7])
        finish(t[at.COUNTERS + 7], done, items)

    return start_experts


def finish_experts(path, t, like, threads):
    """Phase 8: rows of the chosen experts' second matrices, added to the residual stream."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(finish_experts, prefer_literal=True, jit_options=COMPILED)
def _finish_experts(path, t, like, threads):
    its_path = path.literal_value
    item_bytes = LAYOUTS[its_path].bits // 8

    def finish_experts(path, t, like, threads):
        count, groups = t[at.HIDDEN], t[at.WIDTH] // GROUP
        ids = vector_at(t[at.EXPERT_IDS], t[at.SLOTS], INT)
        weights = vector_at(t[at.EXPERT_WEIGHTS], t[at.SLOTS], FLOAT)
        stream = vector_at(t[at.STREAM], count, like)
        rows = count_rows(count, threads)
        items, done = -(-count // rows), 0
        item = claim(t[at.COUNTERS + 8])
        while item < items:
            first, end = item * rows, min((item + 1) * rows, count)
            sums = vector_at(t[at.SUMS] + 4 * first, end - first, FLOAT)
            for i in range(sums.size):
                sums[i] = 0
            for slot in range(ids.size):
                before = ids[slot] * count
                bias = vector_at(t[at.DOWN_BIAS], before + count, like)[before:]
                add_down(
                    its_path,
                    t[at.ACTIVATIONS] + slot * t[at.ACTIVATION_SIZE] * item_bytes,
                    t[at.DOWN_BLOCKS] + before * groups * GROUP_BYTES,
                    t[at.DOWN_SCALES] + before * groups,
                    groups,
                    bias,
                    weights[slot],
                    first,
                    sums,
                )
            for row in range(first, end):
                total = load_float32(stream, row) + round_as(sums[row - first], stream)
                store_exactly(stream, row, round_as(total, stream))
            done += 1
            item = claim(t[at.COUNTERS + 8])
        finish(t[at.COUNTERS + 8], done, items)

    return finish_experts
