"""The decode step on a CPU as a fixed plan: one compiled call per token.

Everything that does not change from token to token is prepared once: the addresses of the weights,
the buffers, the rotations. A step then only passes the token, its position and where the cache is.
It serves the common case: one sequence in one unforked cache, with nothing recorded or only points
that the step stores. `DecodePlan.decode` returns None for any other case, which `KernelEngine`
computes operation by operation.
"""

from threading import Lock
from typing import cast

import torch
from jaxtyping import Float, Int
from oss_kernels.decode_step.plan import DecodeStep, StepOptions, find_obstacle
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.step_points import find_recordings
from oss_lab.engine.weight_places import WeightPlaces
from oss_lab.model.hook import Hooks
from oss_lab.model.past import Past
from oss_lab.model.rope import rotation
from oss_lab.model.transformer import Transformer

RESULTS = {
    "attn.sink_mass": "sink_masses",
    "moe.router_logits": "router_logits",
    "moe.expert_ids": "expert_ids",
    "moe.expert_weights": "expert_weights",
    "moe.margin": "margins",
}
"""The attributes of `DecodeStep` that have a point of all layers."""
POSITIONS = 1024  # rotations are computed for at least this many positions


class DecodePlan:
    """The compiled decode step of a model."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.places = model, WeightPlaces(model)
        self._step: DecodeStep | None = None
        self._lock = Lock()  # threads may share an engine, and so the step's buffers

    def decode(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None,
        last: int | None,
        hooks: Hooks,
    ) -> Float[Tensor, "1 1 vocab"] | None:
        """The logits after one token, as `KernelEngine.forward`; None if this is another case."""
        if tokens.numel() != 1 or not isinstance(past, KVCache) or last == 0:
            return None
        if (recordings := find_recordings(hooks)) is None:
            return None
        if (layers := past.make_room()) is None:
            return None
        token = int(tokens)
        with self._lock:
            step = self._find_step()
            if (
                step is None
                or self.places.need_gradients()
                or not 0 <= token < self.model.config.vocab_size
            ):
                return None
            tails = cast("list[Tensor]", [each.tail for each in layers])
            firsts = [each.first for each in layers]
            if not step.attach(tails, firsts, past.length):  # a cache of another model
                return None
            if past.length >= step.positions:
                self._extend_rotation(step, past.length)
            logits = step(token, past.length)
            for _, recording in recordings:
                names = RESULTS.keys() & recording.selection.points
                recording.add_layers({name: getattr(step, RESULTS[name]) for name in names})
        for _, recording in recordings:
            recording.add("out.logits", None, logits, torch.tensor([past.length]))
        past.advance(1)
        return logits

    def _find_step(self) -> DecodeStep | None:
        """The compiled step, made again if a module, a weight or an option has changed."""
        if self.places.have_changed():
            self._step = self._make_step()
        return self._step

    def _make_step(self) -> DecodeStep | None:
        config, weights = self.model.config, self.places.collect()
        if weights is None or find_obstacle(weights.layers, weights.outer, config.head_dim):
            return None
        windows = [config.window(n) for n in range(len(weights.layers))]
        slots, alpha, limit, eps = weights.options
        options = StepOptions(windows, config.head_dim, slots, eps, alpha, limit)
        return DecodeStep(weights.layers, weights.outer, options)

    def _extend_rotation(self, step: DecodeStep, position: int) -> None:
        """Compute the rotations up to twice this position, but not beyond the context."""
        most = min(max(POSITIONS, 2 * position), self.model.config.max_context_length)
        positions = torch.arange(max(most, position + 1))[None]
        cos, sin = rotation(self.model.config, positions, step.dtype)
        step.set_rotation(cos[0, 0], sin[0, 0])
