"""Copies keys between a KV cache and the buffers of a device plan, on the device.

A plan keeps the keys of each row by position: layers that see every token have a place for each,
the others a ring of `window` places. A cache keeps them by slot, which is the position plus the
row's padding, and in spans that rows and forks may share.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from oss_kernels.device_step.plan import DevicePlan
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.layer_cache import KeysValues


def load_cache(plan: DevicePlan, cache: KVCache) -> bool:
    """Copy the keys that the next token sees into the plan, whose next step then continues there.

    Returns False, and copies nothing, if the cache does not fit: another number of rows, layers or
    heads, another dtype or device, dropped keys, no room for a token, or a row without tokens.
    """
    if (spans := find_spans(plan, cache)) is None:
        return False
    for number, parts in enumerate(spans):
        buffer, window = plan.buffers.caches[number], plan.weights.layers[number].window
        for begin, part in parts:
            rows, places = find_places(cache, begin, part.shape[3], window, buffer.device)
            # Padding has negative positions. It goes to places that are written before they are
            # read: the end of the buffer, or the part of the ring that the row has not reached.
            buffer[:, rows, :, places] = part.permute(1, 3, 0, 2, 4)
    positions = plan.buffers.cursor.positions
    positions.copy_(cache.positions(1, positions.device)[:, 0])
    return True


def find_spans(plan: DevicePlan, cache: KVCache) -> list[list[tuple[int, KeysValues]]] | None:
    """The keys of each layer that the next token sees, with their first slots.

    None if the plan cannot have them.
    """
    buffers, layers, length = plan.buffers.caches, cache.layers, cache.length
    if len(layers) != len(buffers) or cache.batch != buffers[0].shape[1]:
        return None
    if length >= plan.weights.capacity:
        return None
    if cache.padding is not None and int(cache.padding.max()) > length:
        return None
    found = []
    for layer, buffer, weights in zip(layers, buffers, plan.weights.layers, strict=True):
        first = 0 if weights.window is None else max(0, length + 1 - weights.window)
        spans = list(layer.spans(first, length))
        if sum(span.shape[3] for _, span in spans) < length - first:
            return None
        for _, span in spans:
            sizes = span.dtype, span.device, span.shape[2], span.shape[4]
            if sizes != (buffer.dtype, buffer.device, buffer.shape[2], buffer.shape[4]):
                return None
        found.append(spans)
    return found


def read_keys(plan: DevicePlan, cache: KVCache, begin: int, end: int) -> Iterator[KeysValues]:
    """Each layer's keys of the slots begin ... end - 1, which are at most the last `window`."""
    buffers, windows = plan.buffers.caches, [layer.window for layer in plan.weights.layers]
    where = {
        window: find_places(cache, begin, end - begin, window, buffers[0].device)
        for window in set(windows)
    }
    for buffer, window in zip(buffers, windows, strict=True):
        rows, places = where[window]
        yield buffer[:, rows, :, places].permute(2, 0, 3, 1, 4)


def find_places(
    cache: KVCache, begin: int, count: int, window: int | None, device: torch.device
) -> tuple[Int[Tensor, "batch 1"], Int[Tensor, "rows count"]]:
    """Indices of the batch axis and of the key axis, where a plan keeps `count` slots."""
    places = torch.arange(begin, begin + count, device=device)[None]
    if cache.padding is not None:
        places = places - cache.padding.to(device)[:, None]
    rows = torch.arange(cache.batch, device=device)[:, None]
    return rows, places if window is None else places % window
