"""Copies of a model with changed weights: biases left out, queries scaled, biases folded.

Each function edits a model in place. `with_weights` gives it a copy, so no other lab changes.
"""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from oss_lab.course.learner import build_parts
from oss_lab.lab.workbench import Lab
from oss_lab.model.transformer import Block, Transformer


def with_weights(lab: Lab, edit: Callable[[Transformer], None]) -> Lab:
    """A new lab over a copy of the weights that `edit` has changed. It keeps the parts of `lab`.

    It has no checkpoint, because its weights are in no file. It needs as much memory as `lab`.
    """
    lab.model.require_whole("an edit of the weights")
    model = deepcopy(lab.model)
    with torch.no_grad():
        edit(model)
    model = model.with_parts(build_parts(lab.parts))
    return Lab(model, lab.tokenizer, lab.sampling, lab.effort, parts=lab.parts)


def list_blocks(model: Transformer) -> list[Block]:
    return [block for block in model.block if isinstance(block, Block)]


def set_to_zero(parameter: nn.Parameter | None) -> None:
    assert parameter is not None  # every linear layer here has a bias
    parameter.zero_()


def drop_attention_bias(model: Transformer) -> None:
    """The bias of queries, keys and values."""
    for block in list_blocks(model):
        set_to_zero(block.attn.qkv.bias)


def drop_router_bias(model: Transformer) -> None:
    for block in list_blocks(model):
        set_to_zero(block.mlp.gate.bias)


def drop_output_bias(model: Transformer) -> None:
    """The bias of each expert's second matrix."""
    for block in list_blocks(model):
        set_to_zero(block.mlp.mlp2_bias)


def scale_queries(model: Transformer) -> None:
    """Times sqrt(head_dim), which cancels the division of the scores."""
    for block in list_blocks(model):
        queries = block.attn.heads * block.attn.head_dim
        for parameter in (block.attn.qkv.weight, block.attn.qkv.bias):
            parameter[:queries] *= math.sqrt(block.attn.head_dim)


def fold_value_bias(model: Transformer) -> None:
    """Move the bias of the values through the output matrix, as if the shares summed to one."""
    for block in list_blocks(model):
        attn = block.attn
        bias = attn.qkv.bias[-attn.kv_heads * attn.head_dim :]
        per_head = bias.view(attn.kv_heads, 1, -1).expand(-1, attn.heads // attn.kv_heads, -1)
        attn.out.bias.add_(attn.out.weight @ per_head.flatten())
        bias.zero_()
