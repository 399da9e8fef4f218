"""The parts that `lab.with_parts` replaces: one table, from which the checks and texts derive.

    def my_router(router_logits, slots):
        chosen, ids = router_logits.topk(slots)
        return ids, chosen.softmax(-1)

    mine = lab.with_parts(router=my_router)      # a new Lab; `lab` itself does not change
    mine.chat("What is 347 * 62?").parts         # ("router",)

A part receives copies of plain torch tensors, and values that it cannot change. It may be slow,
such as Python loops. `encoding` is the lab's vocabulary: encoding.encode_ordinary(text) gives the
ids of a text, and encoding.encode_single_token("<|end|>") that of a special token. `rows` is
`batch`, or 1 if all sequences share the value. In nano, `hidden` is 96, `head` 8, `kv_head` 2,
`head_dim` 16, `expert` 32, `slot` 4, `width` 96 and `vocab` 640.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tiktoken
import torch
from jaxtyping import Float, Int
from oss_kernels import mxfp4
from torch import Tensor

from oss_lab.course.byte_pairs import merge_bytes
from oss_lab.course.specs import IdsSpec, MessagesSpec, NumberSpec, PieceSpec, Spec, TensorSpec
from oss_lab.engine.sampler import sample
from oss_lab.harmony import Message
from oss_lab.harmony.chat_parts import parse_reply, render_message
from oss_lab.model.attention import attention_scores, softmax_with_sink, visible_keys
from oss_lab.model.moe import choose_experts, clamped_swiglu, split_gate_up, weigh_experts
from oss_lab.model.norm import rms_norm
from oss_lab.model.rope import rotate, yarn_concentration, yarn_frequencies


def route(
    router_logits: Float[Tensor, "batch seq expert"], slots: int
) -> tuple[Int[Tensor, "batch seq slot"], Float[Tensor, "batch seq slot"]]:
    """The chosen experts of each token, and their weights."""
    ids = choose_experts(router_logits, slots)
    return ids, weigh_experts(router_logits, ids)


@dataclass(frozen=True)
class Part:
    """One function that a learner can replace.

    Attributes:
        function: the library's function.
        signature: its arguments and results, with the axes of tensors in words.
        replaces: what it does in the model.
        expect: what it must return for given arguments, as one spec per result.
    """

    name: str
    function: Callable[..., Any]
    signature: str
    replaces: str
    expect: Callable[..., tuple[Spec, ...]]


def like(x: Tensor, *shape: int) -> TensorSpec:
    """The shape, dtype and device of `x`, or another shape."""
    return TensorSpec(shape or tuple(x.shape), x.dtype, x.device)


def expect_pieces(piece: bytes, ranks: Mapping[bytes, int]) -> tuple[Spec, ...]:
    return (PieceSpec(piece, ranks),)


def expect_message_ids(message: Message, encoding: tiktoken.Encoding) -> tuple[Spec, ...]:
    return (IdsSpec(encoding.n_vocab),)


def expect_scores(q: Tensor, k: Tensor) -> tuple[Spec, ...]:
    return (like(q, *q.shape[:3], k.shape[2]),)


def expect_halves(gate_up: Tensor) -> tuple[Spec, ...]:
    half = like(gate_up, *gate_up.shape[:-1], gate_up.shape[-1] // 2)
    return half, half


def expect_mask(queries: Tensor, keys: Tensor, window: int | None) -> tuple[Spec, ...]:
    return (TensorSpec((*queries.shape, keys.shape[-1]), torch.bool, queries.device),)


def expect_frequencies(head_dim: int, *others: float) -> tuple[Spec, ...]:
    return (TensorSpec((head_dim // 2,), torch.float32, torch.device("cpu")),)


def expect_route(router_logits: Tensor, slots: int) -> tuple[Spec, ...]:
    shape, device = (*router_logits.shape[:-1], slots), router_logits.device
    ids = TensorSpec(shape, torch.int64, device, count=router_logits.shape[-1])
    return ids, TensorSpec(shape, router_logits.dtype, device)


def expect_matrix(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> tuple[Spec, ...]:
    width = scales.shape[-1] * mxfp4.BLOCK
    return (TensorSpec((*scales.shape[:-1], width), dtype, blocks.device),)


TABLE = (
    Part(
        "merge",
        merge_bytes,
        "(piece, ranks) -> list[int]",
        "BPE: the ids of one piece of text, as bytes; ranks has the id of every token but the"
        " special ones",
        expect_pieces,
    ),
    Part(
        "render",
        render_message,
        "(message, encoding) -> list[int]",
        "the chat format: the ids of one message of the prompt, from <|start|> to its end token",
        expect_message_ids,
    ),
    Part(
        "parse",
        parse_reply,
        "(ids, encoding) -> list[Message]",
        "the messages of a reply, from which analysis, final and tool_calls are read; ids follow"
        " <|start|>assistant",
        lambda ids, encoding: (MessagesSpec(),),
    ),
    Part(
        "rms_norm",
        rms_norm,
        "(x [*axes hidden], scale [hidden], eps) -> [*axes hidden]",
        "RMSNorm before attention, before the experts and before the unembedding",
        lambda x, scale, eps: (like(x),),
    ),
    Part(
        "rotate",
        rotate,
        "(x [batch head seq head_dim], cos [rows 1 seq head_dim], sin [rows 1 seq head_dim])"
        " -> [batch head seq head_dim]",
        "RoPE: the rotation of queries and keys; cos is (cos, cos), sin is (-sin, sin)",
        lambda x, cos, sin: (like(x),),
    ),
    Part(
        "yarn_frequencies",
        yarn_frequencies,
        "(head_dim, theta, factor, low, high) -> [half]",
        "YaRN: radians per position of each pair of dimensions; computed once, on the CPU",
        expect_frequencies,
    ),
    Part(
        "yarn_concentration",
        yarn_concentration,
        "(factor) -> float",
        "YaRN: the number that multiplies cos and sin",
        lambda factor: (NumberSpec(),),
    ),
    Part(
        "attention_scores",
        attention_scores,
        "(q [batch head seq head_dim], k [rows kv_head key head_dim]) -> [batch head seq key]",
        "the score of each key for each query, before the mask; each kv head serves several heads",
        expect_scores,
    ),
    Part(
        "visible_keys",
        visible_keys,
        "(query_positions [rows seq], key_positions [rows key], window) -> [rows seq key]",
        "the causal mask and the sliding window; window is None in layers that see every key",
        expect_mask,
    ),
    Part(
        "softmax_with_sink",
        softmax_with_sink,
        "(scores [batch head seq key], sinks [batch head])"
        " -> ([batch head seq key], [batch head seq])",
        "the attention pattern, and the share of the sinks; a hidden key has score -inf",
        lambda scores, sinks: (like(scores), like(scores, *scores.shape[:-1])),
    ),
    Part(
        "router",
        route,
        "(router_logits [batch seq expert], slots) -> ([batch seq slot], [batch seq slot])",
        "the choice of the experts, largest logit first, and their weights",
        expect_route,
    ),
    Part(
        "split_gate_up",
        split_gate_up,
        "(gate_up [*rows 2*width]) -> ([*rows width], [*rows width])",
        "gate and up, from the output of an expert's first matrix",
        expect_halves,
    ),
    Part(
        "swiglu",
        clamped_swiglu,
        "(gate [*rows width], up [*rows width], alpha, limit) -> [*rows width]",
        "the activation inside an expert",
        lambda gate, up, alpha, limit: (like(gate),),
    ),
    Part(
        "mxfp4",
        mxfp4.dequantize,
        "(blocks [*rows groups 16], scales [*rows groups], dtype) -> [*rows width]",
        "the decoder of an expert's packed matrix; width is 32 * groups",
        expect_matrix,
    ),
    Part(
        "sample",
        sample,
        "(logits [row vocab], samplings, draws) -> list[int]",
        "the choice of the next token of each row; draws[row].uniform() is its random number",
        lambda logits, samplings, draws: (IdsSpec(logits.shape[1], len(logits)),),
    ),
)
PARTS = {part.name: part for part in TABLE}
OUTSIDE_THE_MODEL = ("merge", "render", "parse", "sample")  # no logit of given ids depends on them


def describe_parts() -> str:
    """The table as text: for each part its signature and what it replaces."""
    return "\n".join(f"{each.name}{each.signature}\n    {each.replaces}" for each in TABLE)


__doc__ = f"{__doc__}\n{describe_parts()}\n"  # `help(oss_lab.course.parts)` shows the table
