"""A decode step for a few rows: a list of launches, prepared once and repeated for each token.

    begin_step     embedding, cos and sin, slots of the caches
    per layer      qkv_rope            norm, q/k/v, RoPE, append to the cache
                   attention           2 launches without a window (splits, merge), 1 with
                   linear              output projection + residual
                   router              2: logits, choice
                   experts             2: gate_up, down + residual
    unembed        2, or 3 with the most likely ids: norm, logits, sampling

All lengths, positions, ids and random counters are on the device, and no argument of a launch
changes from step to step. So the host only repeats the list, or replays it as one CUDA graph, and
nothing is compiled after the first step. The sampled id is where the next step reads it. A host
that samples by itself leaves sampling out (1 launch), and writes its ids there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from oss_kernels.attention.step import SPLITS, make_step_launches
from oss_kernels.begin_step.kernel import launch as launch_begin_step
from oss_kernels.device_step.buffers import Buffers
from oss_kernels.device_step.weights import LayerWeights, StepWeights
from oss_kernels.experts.decode import Chosen, launch_down, launch_gate_up
from oss_kernels.launch import Launch
from oss_kernels.linear.kernel import MAX_TOKENS
from oss_kernels.linear.kernel import launch as launch_linear
from oss_kernels.qkv_rope.kernel import launch as launch_qkv_rope
from oss_kernels.router.decode import make_launches as make_router_launches
from oss_kernels.unembed.kernel import launch as launch_unembed


class DevicePlan:
    """A decode step for `batch` rows.

    Args:
        record: keep the points of every layer in `buffers.points`.
        sample: choose the next ids. Otherwise a step ends with its logits.
        ranks: how many of the most likely ids to find for each row.
        usable: True for each id that may be sampled; None allows all.

    Raises:
        ValueError: more rows than MAX_TOKENS, for which tiles of rows are faster.
    """

    def __init__(
        self,
        weights: StepWeights,
        batch: int = 1,
        *,
        record: bool = False,
        sample: bool = True,
        ranks: int = 0,
        usable: Bool[Tensor, "vocab"] | None = None,
        splits: int = SPLITS,
    ) -> None:
        if not 1 <= batch <= MAX_TOKENS:
            raise ValueError(f"batch is {batch}; a plan has 1 to {MAX_TOKENS} rows")
        self.weights = weights
        self.buffers = Buffers(weights, batch, record=record, ranks=ranks, splits=splits)
        window = max((layer.window or 1 for layer in weights.layers), default=1)
        it = self.buffers
        self.by_part: dict[str, list[Launch]] = {
            "begin": [
                launch_begin_step(
                    it.cursor, weights.embedding, weights.cos, weights.sin, window,
                    it.x, it.cos, it.sin,
                )
            ]
        }  # fmt: skip
        for number, layer in enumerate(weights.layers):
            self.by_part[f"layer {number}"] = self._make_layer(layer, number, record)
        ending = self._make_sampling(usable)
        self.by_part["sample"] = list(ending if sample else ending[:1])  # the first has the logits
        self.launches = tuple(each for part in self.by_part.values() for each in part)
        self.graph: torch.cuda.CUDAGraph | None = None

    def _make_layer(self, layer: LayerWeights, number: int, record: bool) -> list[Launch]:
        it, eps = self.buffers, self.weights.eps
        keys, values = it.caches[number].unbind()
        row = number if record else 0
        lse, logits = it.points.lse[row], it.points.router_logits[row]
        chosen = Chosen(it.points.expert_ids[row], it.points.expert_weights[row])
        slots = it.cursor.full_slots if layer.window is None else it.cursor.ring_slots
        parts = it.parts if layer.window is None else None
        z = it.z.flatten(1)
        alpha, limit = self.weights.alpha, self.weights.limit
        # fmt: off
        return [
            launch_qkv_rope(
                it.x, layer.attn_norm, eps, layer.qkv, layer.qkv_bias, it.cos, it.sin,
                keys, values, slots, it.q,
            ),
            *make_step_launches(
                it.q, keys, values, layer.sinks, it.cursor.lengths, it.z, lse, parts
            ),
            launch_linear(z, layer.out, layer.out_bias, it.x, it.mid),
            *make_router_launches(
                it.mid, layer.moe_norm, eps, layer.router, layer.router_bias,
                logits, chosen.ids, chosen.weights, it.arranged,
            ),
            launch_gate_up(it.arranged, chosen, layer.experts, it.activation, alpha, limit),
            launch_down(it.activation, chosen, layer.experts, it.mid, it.x),
        ]
        # fmt: on

    def _make_sampling(self, usable: Tensor | None) -> tuple[Launch, ...]:
        it, weights, sampled = self.buffers, self.weights, self.buffers.sampled
        ranked = None
        if sampled.top_ids is not None and sampled.top_logprobs is not None:
            ranked = sampled.top_ids, sampled.top_logprobs
        return launch_unembed(
            it.x, weights.norm, weights.eps, weights.unembedding, sampled.temperature,
            sampled.seed, it.cursor.lengths, usable, it.cursor.tokens, sampled.logprobs,
            sampled.logits, ranked,
        )  # fmt: skip

    def step(self, run: Callable[[Launch], object] = Launch.__call__) -> None:
        """Read the next token of every row and sample the one after it.

        The host waits for nothing, so it must not step beyond the capacity: such a token has no
        position. `run` is called with each launch, in order.
        """
        if self.graph is not None:
            self.graph.replay()
            return
        for launch in self.launches:
            run(launch)

    def capture(self) -> None:
        """Make `step` replay a CUDA graph. Call it before the caches and the cursor are filled."""
        self.step()  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self.graph = graph
