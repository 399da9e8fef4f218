"""Run requests and build their traces: one pass through each sequence, labels and origin."""

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import tiktoken
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import EngineChoice
from oss_lab.engine.read import Channels
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.errors import LabError
from oss_lab.hooks.cost import TracePlan, nbytes
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Selection, name_tensor
from oss_lab.model.experts import has_dense_experts
from oss_lab.progress import track_progress
from oss_lab.record.token_labels import TokenLabel, label_token_ids, token_text
from oss_lab.record.trace import Origin, Trace
from oss_lab.version import __version__

PIECE = 64  # tokens to run when the time is measured


def trace_requests(
    chosen: EngineChoice,
    tokenizer: tiktoken.Encoding | None,
    requests: Sequence[Request],
    checkpoint: str | None,
) -> list[Trace]:
    """Trace each request's sequence from its start; all requests are read in one batch.

    Args:
        tokenizer: None if the vocabulary is unknown; labels then hold ids only.
        checkpoint: SHA-256 of the checkpoint.
    """
    channels = None if tokenizer is None else channels_by(tokenizer)
    batch = Batch(chosen.engine, channels=channels, watch=watch_reading)
    rows = batch.add(requests)
    return [
        build_trace(row, row.request.tokens, chosen, tokenizer, checkpoint, seed=None)
        for row in rows
    ]


def watch_reading(chunks: Sequence[Tensor]) -> Iterable[Tensor]:
    """The chunks of a prompt; a progress bar appears after two seconds."""
    return track_progress(chunks, "read", "chunk")


def channels_by(tokenizer: tiktoken.Encoding) -> Channels:
    """A function that returns the channel of each token of a sequence."""
    return lambda ids: [label.channel for label in label_token_ids(tokenizer, ids)]


def build_trace(
    row: BatchRow,
    tokens: Sequence[int],
    chosen: EngineChoice,
    tokenizer: tiktoken.Encoding | None,
    checkpoint: str | None,
    *,
    seed: int | None,
) -> Trace:
    """The trace of what a row recorded over `tokens`, with labels and origin."""
    if row.recording is None:
        raise LabError("this request recorded nothing: give it a selection")
    applied = tuple(str(effect.intervention) for effect in row.request.effects)
    return label_trace(
        row.recording.tensors(),
        row.recording.selection,
        tokens,
        tokenizer,
        build_origin(chosen, checkpoint, applied, seed),
        chosen.engine.config,
    )


def label_trace(
    tensors: Mapping[tuple[str, int | None], Tensor],
    selection: Selection,
    tokens: Sequence[int],
    tokenizer: tiktoken.Encoding | None,
    origin: Origin,
    config: ModelConfig,
) -> Trace:
    """A trace of these tensors [seq ...], by point and layer, over the tokens of a sequence."""
    return Trace(
        tokens=tuple(tokens),
        labels=label_tokens(tokenizer, tokens),
        selection=selection,
        layers=config.num_hidden_layers,
        heads_per_kv_head=config.num_attention_heads // config.num_key_value_heads,
        tensors={name_tensor(*key): tensor for key, tensor in tensors.items()},
        origin=origin,
        config=config,
        texts=read_texts(tokenizer, tensors.get(("out.top_ids", None))),
    )


def read_texts(tokenizer: tiktoken.Encoding | None, ids: Tensor | None) -> dict[int, str]:
    """The text of each id, by id; empty without ids or without a vocabulary."""
    if tokenizer is None or ids is None:
        return {}
    return {id: token_text(tokenizer, id) for id in ids.unique().tolist()}


def build_origin(
    chosen: EngineChoice, checkpoint: str | None, interventions: tuple[str, ...], seed: int | None
) -> Origin:
    """The origin of a trace that this engine computes."""
    model = chosen.engine.model
    weights = model.embedding.weight
    return Origin(
        checkpoint=checkpoint,
        kernels=chosen.engine.name,
        reason=chosen.reason,
        parts=chosen.engine.parts,
        dtype=str(weights.dtype).removeprefix("torch."),
        device=weights.device.type,
        seed=seed,
        interventions=interventions,
        versions={
            "oss_lab": __version__,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        experts="bf16" if has_dense_experts(model) else "mxfp4",
    )


def label_tokens(
    tokenizer: tiktoken.Encoding | None, tokens: Sequence[int]
) -> tuple[TokenLabel, ...]:
    """The label of each token; only its id if the vocabulary is unknown."""
    if tokenizer is None:
        return tuple(TokenLabel(f"<token {token}>") for token in tokens)
    return label_token_ids(tokenizer, tokens)


def plan_request(chosen: EngineChoice, request: Request) -> TracePlan:
    """Estimate the bytes and seconds of a trace; runs its first tokens to measure the time."""
    selection, model = request.selection, chosen.engine.model
    assert selection is not None
    first = request.tokens[:PIECE]
    everywhere = Selection(selection.points, selection.layers, selection.heads)
    piece = replace(request, tokens=first, selection=everywhere, effects=())
    began = time.perf_counter()
    Batch(chosen.engine).add([piece])
    seconds = (time.perf_counter() - began) * len(request.tokens) / len(first)
    points = [POINTS[name] for name in selection.points]
    sizes = {point.name: nbytes(model, selection, point, len(request.tokens)) for point in points}
    return TracePlan(len(request.tokens), sizes, seconds)
