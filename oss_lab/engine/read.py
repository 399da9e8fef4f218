"""Forward passes over a batch's tokens, with the interventions and recordings of each row."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.engine import Engine
from oss_lab.engine.kernels import KernelEngine
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.hooks.forward import open_hooks
from oss_lab.hooks.points import needs_logits
from oss_lab.hooks.step import ForwardPass
from oss_lab.model.attention import visible_keys
from oss_lab.model.past import Past

PREFILL_CHUNK = 512
GPU_PREFILL_CHUNK = 4096
"""Tokens per chunk of all rows together. With 512, each expert of 20b gets 64 tokens, and a GPU
would read all experts for few products. 4,096 need 0.3 GB for the experts' activations."""

Watch = Callable[[Sequence[Tensor]], Iterable[Tensor]]
"""Wraps the chunks of a prompt, to show progress."""

Channels = Callable[[Sequence[int]], Sequence[str | None]]
"""The channel of each token of a sequence, for interventions on channels."""


@torch.inference_mode()
def forward(
    engine: Engine,
    tokens: Int[Tensor, "row seq"],
    past: Past,
    rows: Sequence[BatchRow],
    last: int | None,
    channels: Channels | None = None,
    *,
    is_prefill: bool = True,
) -> Float[Tensor, "row kept vocab"]:
    """Run one forward pass; the rows' recordings and counts are kept only if it succeeds."""
    if not any(row.needs_hooks for row in rows):
        return engine.forward(tokens, past, last=last)
    positions = past.positions(tokens.shape[1], tokens.device).expand(len(rows), -1)
    step = ForwardPass(
        tokens, positions, is_prefill, tuple(row.number for row in rows),
        find_channels(rows, positions, channels),
    )  # fmt: skip
    effects = [row.request.effects for row in rows]
    with open_hooks(step, effects, [row.recording for row in rows]) as hooks:
        return engine.forward(tokens, past, last=last, hooks=hooks)


def prefill(
    engine: Engine,
    rows: Sequence[BatchRow],
    tokens: Int[Tensor, "row slot"],
    cache: KVCache,
    first_kept: int = 0,
    channels: Channels | None = None,
    watch: Watch = iter,
) -> Iterator[Float[Tensor, "row kept vocab"]]:
    """Read the tokens that are not in the cache yet, in chunks (prefill).

    Yields the logits of each chunk, from slot `first_kept` on.
    """
    selections = [row.request.selection for row in rows]
    if any(each is not None and needs_logits(each.points) for each in selections):
        first_kept = 0
    size = PREFILL_CHUNK
    if isinstance(engine, KernelEngine) and engine.name == "triton":
        size = max(size, GPU_PREFILL_CHUNK // len(rows))
    for chunk in watch(tokens[:, cache.length :].split(size, dim=1)):
        end = cache.length + chunk.shape[1]
        yield forward(engine, chunk, cache, rows, max(0, end - first_kept), channels)


def new_cache(engine: Engine, batch: int, padding: Int[Tensor, "batch"] | None) -> KVCache:
    """An empty cache that nothing forks: sliding layers keep only their window.

    A learner's mask may show any key, so it gets the full history.
    """
    is_published = engine.model.parts.visible_keys is visible_keys
    history = "window" if is_published else "full"
    return KVCache(engine.config, batch, padding=padding, history=history)


def read_logits(
    engine: Engine,
    requests: Sequence[Request],
    last: int | None = None,
    channels: Channels | None = None,
    watch: Watch = iter,
) -> list[Float[Tensor, "kept vocab"]]:
    """Logits (float32) at the last `last` positions of each sequence; None for all positions."""
    rows = [BatchRow(request, n, engine) for n, request in enumerate(requests)]
    tokens, padding = pad_left([request.tokens for request in requests], engine.device)
    cache = new_cache(engine, len(rows), padding)
    longest = tokens.shape[1]
    first_kept = 0 if last is None else max(0, longest - last)
    parts = list(prefill(engine, rows, tokens, cache, first_kept, channels, watch))
    logits = torch.cat([part.float() for part in parts], dim=1)
    kept = [len(r.tokens) if last is None else min(last, len(r.tokens)) for r in requests]
    return [row[len(row) - count :].clone() for row, count in zip(logits, kept, strict=True)]


def find_channels(
    rows: Sequence[BatchRow], positions: Int[Tensor, "row seq"], channels: Channels | None
) -> tuple[tuple[str | None, ...], ...] | None:
    """The channel of each token, if an intervention needs it."""
    if channels is None or not any(
        effect.intervention.needs_channels for row in rows for effect in row.request.effects
    ):
        return None
    found = []
    for row, at in zip(rows, positions.tolist(), strict=True):
        labels = channels(row.ids)
        found.append(tuple(None if place < 0 else labels[place] for place in at))
    return tuple(found)


def pad_left(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch"] | None]:
    """Put prompts of any lengths into one tensor; also return each row's padding (None: none)."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    padded = [[0] * short + list(prompt) for short, prompt in zip(padding, prompts, strict=True)]
    tokens = torch.tensor(padded, device=device)
    return tokens, torch.tensor(padding, device=device) if any(padding) else None
