"""Allocates what a step writes, and makes the table that says where everything is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from oss_kernels.cpu.bf16_rows import CHUNK, ORDER
from oss_kernels.cpu.e2m1_layouts import GROUP, Layout
from oss_kernels.decode_step import table as at
from oss_kernels.decode_step.attention import BLOCK
from oss_kernels.decode_step.heads import count_lanes
from oss_kernels.decode_step.places import empty_row, find_places
from oss_kernels.decode_step.work import empty_counters

Weights = Mapping[str, Tensor]
Columns = Mapping[int, Tensor]
"""Tensors by the column of the table that has their address."""
TYPES = {16: torch.uint16, 32: torch.float32}


@dataclass(frozen=True)
class StepSizes:
    """The sizes of a model. Most follow from the shapes of its weights."""

    layers: int
    hidden: int
    width: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    slots: int

    @classmethod
    def of(
        cls, layers: Sequence[Weights], outer: Weights, head_dim: int, slots: int
    ) -> "StepSizes":
        first = layers[0]
        heads, (experts, _, groups) = len(first["sinks"]), first["down_scales"].shape
        kv_heads = (len(first["qkv"]) // head_dim - heads) // 2
        vocab, hidden = outer["unembedding"].shape
        width = groups * GROUP
        return cls(len(layers), hidden, width, vocab, heads, kv_heads, head_dim, experts, slots)


def make_results(sizes: StepSizes) -> Columns:
    """The results of a step besides the logits, [layer ...]."""
    layers = sizes.layers
    return {
        at.ROUTER_LOGITS: torch.zeros(layers, sizes.experts),
        at.EXPERT_IDS: torch.zeros(layers, sizes.slots, dtype=torch.int64),
        at.EXPERT_WEIGHTS: torch.zeros(layers, sizes.slots),
        at.MARGIN: torch.zeros(layers),
        at.SINK_MASSES: torch.zeros(layers, sizes.heads),
    }


def make_scratch(sizes: StepSizes, layout: Layout, dtype: torch.dtype) -> Columns:
    """What all layers share: one token's activations, and the places of their elements."""
    hidden, heads, head_dim = sizes.hidden, sizes.heads, sizes.head_dim
    chunk, order = (CHUNK, ORDER) if dtype == torch.bfloat16 else (1, (0,))
    elements, kept = layout.elements, TYPES[layout.bits]
    activation = empty_row(sizes.width, elements, kept)
    return {
        at.STREAM: torch.zeros(hidden, dtype=dtype),
        at.DENSE_INPUT: empty_row(hidden, chunk, torch.float32),
        at.EXPERT_INPUT: empty_row(hidden, elements, kept),
        at.HEADS: torch.zeros(heads + 2 * sizes.kv_heads, head_dim, dtype=dtype),
        at.QUERIES: torch.zeros(heads, head_dim),
        at.SCORES: torch.zeros(sizes.kv_heads, BLOCK, count_lanes(heads // sizes.kv_heads)),
        at.Z: torch.zeros(heads, head_dim),
        at.SUMS: torch.zeros(hidden),
        at.OUT_INPUT: empty_row(heads * head_dim, chunk, torch.float32),
        at.ACTIVATIONS: activation.repeat(sizes.slots, 1),
        at.HIDDEN_PLACES: find_places(hidden, order),
        at.OUT_PLACES: find_places(heads * head_dim, order),
        at.EXPERT_PLACES: find_places(hidden, layout.order),
        at.WIDTH_PLACES: find_places(sizes.width, layout.order),
    }


def make_counters(sizes: StepSizes) -> Int[Tensor, "rows phases counters"]:
    """The counters of all phases."""
    return empty_counters(sizes.layers + 1, at.PHASES)


def make_table(
    sizes: StepSizes,
    layers: Sequence[Weights],
    outer: Weights,
    windows: Sequence[int | None],
    scratch: Columns,
    results: Columns,
    counters: Tensor,
) -> Int[Tensor, "rows columns"]:
    """The table described in `table`, without the rotations and the cache."""
    table = torch.zeros(sizes.layers + 1, at.COLUMNS, dtype=torch.int64)
    for column, name in enumerate(at.LAYER_WEIGHTS):
        for row, weights in zip(table, layers, strict=False):  # the last row has no layer
            row[column] = weights[name].data_ptr()
    for column, name in enumerate(at.OUTER_WEIGHTS, start=len(at.LAYER_WEIGHTS)):
        table[:, column] = outer[name].data_ptr()
    for column, buffer in scratch.items():
        table[:, column] = buffer.data_ptr()
    for row, window, each in zip(table, [*windows, None], counters, strict=True):
        row[at.WINDOW] = window or 0
        for phase, counter in enumerate(each, start=at.COUNTERS):
            row[phase] = counter.data_ptr()
    for column, buffer in results.items():
        for row, own in zip(table, buffer, strict=False):
            row[column] = own.data_ptr()
    for column, size in {
        at.HIDDEN: sizes.hidden,
        at.WIDTH: sizes.width,
        at.VOCAB: sizes.vocab,
        at.HEAD_COUNT: sizes.heads,
        at.KV_HEADS: sizes.kv_heads,
        at.HEAD_DIM: sizes.head_dim,
        at.EXPERTS: sizes.experts,
        at.SLOTS: sizes.slots,
        at.DENSE_SIZE: scratch[at.DENSE_INPUT].numel(),
        at.EXPERT_SIZE: scratch[at.EXPERT_INPUT].numel(),
        at.OUT_SIZE: scratch[at.OUT_INPUT].numel(),
        at.ACTIVATION_SIZE: scratch[at.ACTIVATIONS].shape[1],
    }.items():
        table[:, column] = size
    return table
