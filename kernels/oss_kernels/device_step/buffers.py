"""Everything that a decode step writes, allocated once per batch size.

With `record`, every layer has its own row in the buffers of the recorded points. Without, all
layers share one, since the next layer no longer needs it. Kernels write the same bytes either way.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.begin_step.reference import Cursor
from oss_kernels.device_step.weights import StepWeights


@dataclass(frozen=True)
class Points:
    """What a step can show. The layer axis is 1 unless the points are recorded.

    Attributes:
        lse: log of the sum of exp(score) over all keys and the sink, in nats, float32.
        router_logits: float32, and so are expert_weights.
    """

    lse: Float[Tensor, "layer batch head"]
    router_logits: Float[Tensor, "layer batch expert"]
    expert_ids: Int[Tensor, "layer batch slot"]
    expert_weights: Float[Tensor, "layer batch slot"]


@dataclass(frozen=True)
class Sampled:
    """How each row is sampled, and the result. The id goes to the cursor's tokens.

    Attributes:
        temperature: float32; 0 takes the most likely id.
        seed: int64, 0 or more.
        logprobs: of the sampled ids, over the whole vocabulary at temperature 1.
        logits: float32.
        top_ids, top_logprobs: the most likely ids; None if no ranks were requested.
    """

    temperature: Float[Tensor, "batch"]
    seed: Int[Tensor, "batch"]
    logprobs: Float[Tensor, "batch"]
    logits: Float[Tensor, "batch vocab"]
    top_ids: Int[Tensor, "batch rank"] | None
    top_logprobs: Float[Tensor, "batch rank"] | None


class Buffers:
    """The tensors of a step for `batch` rows.

    Attributes:
        caches: keys and values of each layer. Layers with a window keep a ring of that many tokens.
    """

    def __init__(
        self, weights: StepWeights, batch: int, *, record: bool, ranks: int, splits: int
    ) -> None:
        like, layers = weights.embedding, weights.layers
        heads, head_dim, kv_heads = weights.heads, weights.head_dim, weights.kv_heads
        experts, width = layers[0].experts.experts, layers[0].experts.width

        def empty(*shape: int, dtype: torch.dtype = like.dtype) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=like.device)

        def layered(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            rows = len(layers) if record else 1
            return torch.zeros(rows, batch, *shape, dtype=dtype, device=like.device)

        hidden, vocab = like.shape[1], len(like)
        self.x, self.mid, self.arranged = (empty(hidden) for _ in range(3))
        self.cos, self.sin = empty(head_dim), empty(head_dim)
        self.q, self.z = (empty(heads, head_dim) for _ in range(2))
        self.activation = empty(weights.slots, width).flatten(0, 1)
        self.parts = (
            torch.zeros(splits, batch, heads, head_dim, device=like.device),
            torch.zeros(splits, batch, heads, device=like.device),
        )
        self.caches = tuple(
            torch.zeros(
                2,
                batch,
                kv_heads,
                weights.capacity if layer.window is None else layer.window,
                head_dim,
                dtype=like.dtype,
                device=like.device,
            )
            for layer in layers
        )
        self.points = Points(
            layered(heads),
            layered(experts),
            layered(weights.slots, dtype=torch.int32),
            layered(weights.slots),
        )
        tokens, positions, lengths, full, ring = (empty(dtype=torch.int32) for _ in range(5))
        text = empty(weights.capacity, dtype=torch.int32)
        self.cursor = Cursor(tokens, positions, lengths, full, ring, text)
        self.sampled = Sampled(
            empty(dtype=torch.float32),
            empty(dtype=torch.int64),
            empty(dtype=torch.float32),
            empty(vocab, dtype=torch.float32),
            empty(ranks, dtype=torch.int64) if ranks else None,
            empty(ranks, dtype=torch.float32) if ranks else None,
        )
