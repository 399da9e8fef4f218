"""Calls hooks with the whole values of a split model. Each process keeps its part of the result."""

from hashlib import blake2b

import torch
from torch import Tensor

from oss_lab.engine.parallel.processes import Processes
from oss_lab.hooks.points import FORWARD_POINTS, POINTS
from oss_lab.model.hook import Hooks, call_hooks

BY_HEAD = frozenset(name for name in FORWARD_POINTS if {"head", "kv_head"} & {*POINTS[name].axes})
"""Points whose heads are split; in the model their second axis is the head."""

BY_SLOT = frozenset({"moe.gate", "moe.up", "moe.act", "moe.expert_out"})
"""Points where a process has the slots of its experts, and zero in the others."""


class WholeHooks:
    """Gathers a value before `hooks` sees it, at the points that `hooks` uses.

    Hooks with an attribute `points` (such as `Recorder`) are called at these points only.

    Attributes:
        changes: a hash of all values that the hooks replaced.
    """

    def __init__(self, hooks: Hooks, processes: Processes) -> None:
        self.hooks, self.processes = hooks, processes
        self.points = getattr(hooks, "points", None)
        self.changes = blake2b(digest_size=8)

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if self.points is not None and point not in self.points:
            return x
        whole = x
        if point in BY_HEAD:
            whole = self.processes.all_gather(x, dim=1)
        elif point in BY_SLOT:
            whole = self.processes.all_reduce(x)
        result = call_hooks(self.hooks, point, layer, whole)
        if result is not whole:
            contents = result.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            self.changes.update(repr((point, layer)).encode() + contents)
        if point in BY_HEAD:
            return result.chunk(self.processes.count, dim=1)[self.processes.rank]
        return result
