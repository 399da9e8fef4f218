"""The decode step of an engine on a GPU: a device plan for each number of rows.

It serves one new token for each of up to eight rows of one cache, with nothing recorded or only
points that the step stores. `DeviceDecode.decode` returns None for any other case, which
`KernelEngine` computes operation by operation.

At the first step of a cache its keys are copied into a plan, which then holds the cache: new keys
are only in the plan. They return to the cache when anything else needs them (`KVCache.layers`), or
when another cache with as many rows takes a step. The plan's ring of a sliding layer has the last
`window` tokens only, so the cache gets new keys before the ring overwrites them.
"""

from math import inf
from threading import RLock
from weakref import ref

import torch
from jaxtyping import Float, Int
from oss_kernels.device_step.plan import DevicePlan
from oss_kernels.linear.kernel import MAX_TOKENS
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.device_cache import load_cache, read_keys
from oss_lab.engine.device_plan import can_run, make_device_plan, read_points
from oss_lab.engine.step_points import find_recordings
from oss_lab.engine.weight_places import WeightPlaces
from oss_lab.model.hook import Hooks
from oss_lab.model.past import Past
from oss_lab.model.transformer import Transformer

CAPACITY = 4096  # tokens that a plan has room for at first
LOCK = RLock()  # threads may share an engine, and a cache may move from one engine to another


class LoadedPlan:
    """A device plan, and the cache that it holds."""

    def __init__(self, plan: DevicePlan) -> None:
        self.plan = plan
        windows = [layer.window for layer in plan.weights.layers if layer.window]
        self._ring = min(windows, default=inf)  # tokens that every layer has
        self._cache: ref[KVCache] | None = None  # a cache that is dropped needs no keys
        self._saved = 0  # slots whose keys the cache has
        self._next: int | None = None  # the slot of the next token, as the plan counts

    def step(
        self, cache: KVCache, tokens: Int[Tensor, "batch 1"]
    ) -> Float[Tensor, "batch vocab"] | None:
        """Logits after these tokens, in the plan's buffers; None if the cache does not fit."""
        if cache.holder is not self and not self._load(cache):
            return None
        if cache.length - self._saved >= self._ring:
            self._save(cache)
        cursor = self.plan.buffers.cursor
        if self._next != cache.length:  # the last step was interrupted
            cursor.positions.copy_(cache.positions(1, cursor.positions.device)[:, 0])
        self._next = None
        cursor.tokens.copy_(tokens[:, 0])
        self.plan.step()
        self._next = cache.length + 1
        return self.plan.buffers.sampled.logits

    def give_back(self, cache: KVCache) -> None:
        """Hold the cache no longer; it then has all of its keys."""
        with LOCK:
            if cache.holder is self:
                self._save(cache)
                cache.holder = None

    def release(self) -> None:
        """Hold no cache."""
        cache = self._cache and self._cache()
        if cache is not None:
            self.give_back(cache)

    def _load(self, cache: KVCache) -> bool:
        self.release()
        if not load_cache(self.plan, cache):
            return False
        self._cache, self._saved, self._next = ref(cache), cache.length, cache.length
        cache.holder = self
        return True

    def _save(self, cache: KVCache) -> None:
        """Store in the cache the keys that only the plan has."""
        if cache.length > self._saved:
            keys = read_keys(self.plan, cache, self._saved, cache.length)
            cache.store(self._saved, keys)
            self._saved = cache.length


class DeviceDecode:
    """The device plans of a model, made when they are first needed."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.places = model, WeightPlaces(model)
        self._can_run = False
        self._plans: dict[tuple[int, bool], LoadedPlan] = {}  # by rows, and whether they record

    def decode(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None,
        last: int | None,
        hooks: Hooks,
    ) -> Float[Tensor, "batch 1 vocab"] | None:
        """The logits after one token, as `KernelEngine.forward`; None if this is another case."""
        if not isinstance(past, KVCache) or tokens.shape != (past.batch, 1) or last == 0:
            return None
        if past.batch > MAX_TOKENS or past.length >= self.model.config.max_context_length:
            return None
        if (recordings := find_recordings(hooks)) is None:
            return None
        with LOCK:
            loaded = self._find_plan(past.batch, past.length, record=bool(recordings))
            if loaded is None or self.places.need_gradients():
                return None
            if (found := loaded.step(past, tokens)) is None:
                return None
            logits = found[:, None].to(self.model.embedding.weight.dtype, copy=True)
            points = read_points(self.model, loaded.plan) if recordings else {}
            for row, recording in recordings:
                names = points.keys() & recording.selection.points
                recording.add_layers({name: points[name][:, row] for name in names})
                at = torch.tensor([past.length])
                recording.add("out.logits", None, logits[row : row + 1], at)
            past.advance(1)
        return logits

    def _find_plan(self, rows: int, length: int, *, record: bool) -> LoadedPlan | None:
        """The plan for these rows, with room for one more token than `length`.

        Plans are made again if a module, a weight or an option has changed, or if one is full.
        """
        if self.places.have_changed():
            for each in self._plans.values():
                each.release()  # a cache would keep the old plan in memory
            self._plans.clear()
            self._can_run = can_run(self.places.collect(), self.model.config.head_dim)
        if not self._can_run:
            return None
        loaded = self._plans.get((rows, record))
        if loaded is None or loaded.plan.weights.capacity <= length:
            if loaded is not None:
                loaded.release()
                del self._plans[rows, record], loaded  # its memory is free for the next
            most = self.model.config.max_context_length
            capacity = min(max(CAPACITY, 1 << length.bit_length()), most)
            with torch.inference_mode(False), torch.no_grad():  # steps of any mode write to it
                plan = make_device_plan(self.model, rows, capacity, record=record, sample=False)
            loaded = self._plans[rows, record] = LoadedPlan(plan)
        return loaded
