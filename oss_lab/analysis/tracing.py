"""From requests to traces: one run through each sequence, and the origin of its trace."""

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import tiktoken
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Chosen
from oss_lab.engine.read import Channels
from oss_lab.engine.request import Request
from oss_lab.engine.row import Row
from oss_lab.errors import LabError
from oss_lab.hooks.cost import Plan, nbytes
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Selection, where
from oss_lab.progress import progress
from oss_lab.record.token_labels import TokenLabel, token_labels
from oss_lab.record.trace import Origin, Trace
from oss_lab.version import __version__

PIECE = 64  # tokens that are run to measure the time


def trace_requests(
    chosen: Chosen,
    tokenizer: tiktoken.Encoding | None,
    requests: Sequence[Request],
    checkpoint: str | None,
) -> list[Trace]:
    """The trace of each request's sequence, read in one batch from its beginning.

    Args:
        tokenizer: None where the vocabulary is not known; labels then hold ids only.
        checkpoint: its SHA-256.
    """
    channels = None if tokenizer is None else channels_by(tokenizer)
    batch = Batch(chosen.engine, channels=channels, watch=watch_reading)
    rows = batch.join(requests)
    return [
        build_trace(row, row.request.tokens, chosen, tokenizer, checkpoint, seed=None)
        for row in rows
    ]


def watch_reading(chunks: Sequence[Tensor]) -> Iterable[Tensor]:
    """The chunks of a prompt, with progress after two seconds."""
    return progress(chunks, "read", "chunk")


def channels_by(tokenizer: tiktoken.Encoding) -> Channels:
    """A function that returns the channel of each token of a sequence."""
    return lambda ids: [label.channel for label in token_labels(tokenizer, ids)]


def build_trace(
    row: Row,
    tokens: Sequence[int],
    chosen: Chosen,
    tokenizer: tiktoken.Encoding | None,
    checkpoint: str | None,
    *,
    seed: int | None,
) -> Trace:
    """What a row recorded over `tokens`, with their labels and the origin of the trace."""
    if row.recording is None:
        raise LabError("this request recorded nothing")
    applied = tuple(str(effect.of_what) for effect in row.request.effects)
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
        tensors={where(*key): tensor for key, tensor in tensors.items()},
        origin=origin,
    )


def build_origin(
    chosen: Chosen, checkpoint: str | None, interventions: tuple[str, ...], seed: int | None
) -> Origin:
    """The origin of a trace that this engine computes now."""
    weights = chosen.engine.model.embedding.weight
    return Origin(
        checkpoint=checkpoint,
        kernels=chosen.engine.name,
        reason=chosen.reason,
        dtype=str(weights.dtype).removeprefix("torch."),
        device=weights.device.type,
        seed=seed,
        interventions=interventions,
        versions={
            "oss_lab": __version__,
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    )


def label_tokens(
    tokenizer: tiktoken.Encoding | None, tokens: Sequence[int]
) -> tuple[TokenLabel, ...]:
    """The label of each token; its id only, where the vocabulary is not known."""
    if tokenizer is None:
        return tuple(TokenLabel(f"<token {token}>") for token in tokens)
    return token_labels(tokenizer, tokens)


def plan_request(chosen: Chosen, request: Request) -> Plan:
    """Bytes and seconds of a trace; its first tokens are run to measure the time."""
    selection, model = request.selection, chosen.engine.model
    assert selection is not None
    first = request.tokens[:PIECE]
    everywhere = Selection(selection.points, selection.layers, selection.heads)
    piece = replace(request, tokens=first, selection=everywhere, effects=())
    began = time.perf_counter()
    Batch(chosen.engine).join([piece])
    seconds = (time.perf_counter() - began) * len(request.tokens) / len(first)
    points = [POINTS[name] for name in selection.points]
    sizes = {point.name: nbytes(model, selection, point, len(request.tokens)) for point in points}
    return Plan(len(request.tokens), sizes, seconds)
