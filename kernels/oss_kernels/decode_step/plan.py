"""The decode step of one model on a CPU, prepared once and then called for every token."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from operator import is_not
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor

from oss_kernels.cpu.bf16_rows import CHUNK
from oss_kernels.cpu.e2m1_layouts import LAYOUTS, choose_path
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.decode_step import table as at
from oss_kernels.decode_step.buffers import (
    StepSizes,
    Weights,
    make_counters,
    make_results,
    make_scratch,
    make_table,
)
from oss_kernels.decode_step.heads import count_lanes
from oss_kernels.decode_step.step import compile_alone, compile_together

FEW_BYTES = 2**23  # a step that reads fewer is faster on one thread, which waits for no other


@dataclass(frozen=True)
class StepOptions:
    """What the shapes of the weights do not say.

    Attributes:
        windows: the number of keys that each layer sees; None for all.
        slots: experts per token.
        eps: of the norms.
        alpha, limit: of SwiGLU.
    """

    windows: Sequence[int | None]
    head_dim: int
    slots: int
    eps: float
    alpha: float
    limit: float


def find_obstacle(layers: Sequence[Weights], outer: Weights, head_dim: int) -> str | None:
    """Why the compiled step cannot read these weights, or None if it can."""
    dtype = outer["embedding"].dtype
    if dtype not in (torch.bfloat16, torch.float32):
        return f"the weights are {dtype}"
    for name, weight in (each for weights in (outer, *layers) for each in weights.items()):
        is_packed = name.endswith(("blocks", "scales"))
        if weight.device.type != "cpu":
            return f"{name} is on {weight.device}"
        if weight.dtype != (torch.uint8 if is_packed else dtype) or not weight.is_contiguous():
            return f"{name} is {weight.dtype} with strides {weight.stride()}"
    shortest = min(layers[0]["qkv"].shape[1], layers[0]["out"].shape[1])
    if dtype == torch.bfloat16 and shortest < CHUNK:
        return f"a row has {shortest} weights, fewer than {CHUNK}"
    if choose_path(dtype, count_groups(layers)) is None:
        return f"a row has {count_groups(layers)} groups, fewer than a chunk"
    sizes = StepSizes.of(layers, outer, head_dim, slots=1)
    lanes = count_lanes(sizes.heads // sizes.kv_heads)
    if head_dim & (head_dim - 1) or lanes > min(16, head_dim):
        return f"head_dim is {head_dim}, with {lanes} heads per kv head"
    return None


def count_groups(layers: Sequence[Weights]) -> int:
    """The groups of the experts' shorter rows."""
    return min(layers[0][f"{matrix}_scales"].shape[2] for matrix in ("gate_up", "down"))


def count_bytes(layers: Sequence[Weights], outer: Weights, used: float) -> float:
    """Bytes of weights that a step reads, if it uses this share of the experts."""
    experts = sum(
        weight.nbytes
        for weights in layers
        for name, weight in weights.items()
        if name.startswith(("gate_up", "down"))
    )
    layered = sum(weight.nbytes for weights in layers for weight in weights.values())
    return outer["unembedding"].nbytes + layered - (1 - used) * experts


def find_least(first: int, window: int | None) -> float:
    """The first slot whose keys are all in a tail that begins with slot `first`."""
    if first == 0:
        return 0
    return first + window - 1 if window else inf


class DecodeStep:
    """Computes the logits of one token after the tokens in a cache.

    Weights are read where they are. Only their addresses are stored, so the caller keeps them. A
    call overwrites the buffers of the one before it, so only one may run at a time.

    Attributes:
        dtype: of the weights and the logits.
        positions: for how many positions there is a rotation.
        sink_masses: of the last token, float32 [layer head]. So are the next four:
        router_logits: float32 [layer expert].
        expert_ids: int64 [layer slot].
        expert_weights: float32 [layer slot].
        margins: float32 [layer].
    """

    def __init__(self, layers: Sequence[Weights], outer: Weights, options: StepOptions) -> None:
        """`layers` and `outer` have the names in LAYER_WEIGHTS and OUTER_WEIGHTS.

        `find_obstacle` must be None for them.
        """
        self.dtype, self.positions = outer["embedding"].dtype, 0
        sizes = StepSizes.of(layers, outer, options.head_dim, options.slots)
        self._windows, self._cache_sizes = options.windows, (1, sizes.kv_heads, sizes.head_dim)
        path = choose_path(self.dtype, count_groups(layers))
        assert path is not None
        results = make_results(sizes)
        self.sink_masses, self.margins = results[at.SINK_MASSES], results[at.MARGIN]
        self.router_logits = results[at.ROUTER_LOGITS]
        self.expert_ids, self.expert_weights = results[at.EXPERT_IDS], results[at.EXPERT_WEIGHTS]
        constants = torch.tensor([options.eps, options.alpha, options.limit])
        self._kept = {**make_scratch(sizes, LAYOUTS[path], self.dtype), at.CONSTANTS: constants}
        counters = make_counters(sizes)
        table = make_table(sizes, layers, outer, options.windows, self._kept, results, counters)
        self._table, self._counters = table.numpy(), counters.numpy()
        self._vocab, self._slot_bytes = sizes.vocab, sizes.head_dim * self.dtype.itemsize
        self._is_small = count_bytes(layers, outer, sizes.slots / sizes.experts) < FEW_BYTES
        self._constants = path, sizes.head_dim, sizes.heads // sizes.kv_heads
        self._tails: list[ref[Tensor]] = []
        self._firsts: list[int] = []
        self._least: float = 0  # the first slot that sees no key before the tails

    def set_rotation(
        self, cos: Float[Tensor, "position head_dim"], sin: Float[Tensor, "position head_dim"]
    ) -> None:
        """Set the rotations: (cos, cos) and (-sin, sin) of each position, in the model's dtype."""
        self._kept |= {at.COS: cos.contiguous(), at.SIN: sin.contiguous()}
        for column in (at.COS, at.SIN):
            self._table[:, column] = self._kept[column].data_ptr()
        self.positions = len(cos)

    def attach(self, tails: Sequence[Tensor], firsts: Sequence[int], length: int) -> bool:
        """Let the next call read the keys in these tails, and write slot `length`.

        Returns False, and the call must not follow, if the dtype or a size is not the step's, or if
        a key is missing that slot `length` sees.

        Args:
            tails: the keys and values of each layer [2 1 kv_head capacity head_dim], contiguous,
                with room for slot `length`.
            firsts: the slot of each tail's first entry.
        """
        attached = [each() for each in self._tails]
        is_same = len(tails) == len(attached) and not any(map(is_not, tails, attached))
        if not is_same or firsts != self._firsts:
            if not self._fits(tails):
                return False
            # A tail that its cache replaces is not kept in memory.
            self._tails, self._firsts = [ref(tail) for tail in tails], list(firsts)
            self._least = max(map(find_least, firsts, self._windows))
            for row, tail, first in zip(self._table, tails, firsts, strict=False):
                # The step counts slots from 0, even if the first are no longer kept. (The last row
                # of the table has no cache.)
                row[at.TAIL] = tail.data_ptr() - first * self._slot_bytes
                row[at.CAPACITY] = tail.shape[3]
        return length >= self._least

    def _fits(self, tails: Sequence[Tensor]) -> bool:
        """Whether these tails have the step's number of layers, dtype and sizes."""
        return len(tails) == len(self._windows) and all(
            tail.dtype == self.dtype
            and tail.device.type == "cpu"
            and (tail.shape[1], tail.shape[2], tail.shape[4]) == self._cache_sizes
            for tail in tails
        )

    def __call__(self, token: int, length: int) -> Float[Tensor, "1 1 vocab"]:
        """Logits after a token. Its keys and values go to slot `length` of the attached cache.

        `length` is the number of tokens in the cache, below `positions`.
        """
        logits = torch.empty(1, 1, self._vocab, dtype=self.dtype)
        threads = 1 if self._is_small else torch.get_num_threads()
        if threads > 1:
            follow_torch()
        run = (compile_alone if threads == 1 else compile_together)(*self._constants)
        run(self._table, self._counters, threads, token, length, as_numpy(logits)[0, 0])
        return logits
