"""The model and the sides of one run, each loaded when a task first needs it.

Tasks that measure memory in a process of their own run first, before this one holds any weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Int
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.bench.command import make_random_ids
from oss_lab.bench.peers import Peers
from oss_lab.bench.sides import Ours, Side, Theirs
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.plan import Dtype
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.choice import Engines
from oss_lab.proof.transformers_model import load_transformers_model


@dataclass(eq=False)
class Setting:
    """One run: a checkpoint, how to compute it, and with whom to compare."""

    checkpoint: Checkpoint
    dtype: Dtype
    kernels: Backend
    threads: int
    repeats: int
    peers: Peers
    longest: int = 2048  # tokens of a prompt in the task "prefill"

    @cached_property
    def engines(self) -> Engines:
        model = load_model(self.checkpoint, dtype=DTYPES[self.dtype])
        return Engines(model, self.kernels, is_auto=True)

    @cached_property
    def sides(self) -> Sequence[Side]:
        """Ours first, then the peers."""
        found: list[Side] = [Ours(self.engines)]
        if self.peers.has_transformers:
            found.append(Theirs(load_transformers_model(self.checkpoint, DTYPES[self.dtype])))
        if self.peers.llama is not None:
            found.append(self.peers.llama)
        return found

    def make_ids(self, count: int, batch: int = 1) -> Int[Tensor, "batch count"]:
        """Random token ids, the same in every run."""
        return make_random_ids(self.checkpoint, count, batch)
