"""A model with low-rank parts: the reference model, with some of its modules in a wrapper.

The wrapper of a linear layer, or of a layer's experts, holds the frozen module and adds the
low-rank part to its result. The wrapper of a layer computes its activations again in the backward
pass. The original model does not change: the adapted one shares its weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from oss_kernels.backends import Backend
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from oss_lab.finetune.attention import KernelAttention
from oss_lab.finetune.frozen import frozen_linear
from oss_lab.finetune.lora import Lora, LowRank, LowRankStack, Part
from oss_lab.model import Transformer
from oss_lab.model.experts import ExpertMatrices
from oss_lab.model.parts import Parts
from oss_lab.model.transformer import Block


class AdaptedLinear(nn.Module):
    """A frozen linear layer whose rows are divided among several low-rank parts, or None."""

    def __init__(self, base: nn.Linear, parts: Sequence[LowRank | None], sizes: Sequence[int]):
        super().__init__()
        self.base, self.parts, self.sizes = base, nn.ModuleList(cast(Any, parts)), sizes

    def forward(self, x: Float[Tensor, "*axes columns"]) -> Float[Tensor, "*axes rows"]:
        y, wide = self.base(x), x.float()  # converted once for all parts
        changes = [
            y.new_zeros(*y.shape[:-1], size) if part is None else part(wide)
            for part, size in zip(self.parts, self.sizes, strict=True)
        ]
        return (y + torch.cat(changes, dim=-1)).to(y.dtype)


class AdaptedExperts(ExpertMatrices):
    """The frozen matrices of a layer's experts, each with a low-rank part."""

    def __init__(
        self, base: ExpertMatrices, part: LowRankStack | None, kernels: Backend | None
    ) -> None:
        super().__init__()
        self.base, self.part, self.kernels = base, part, kernels

    def matrices(
        self, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Float[Tensor, "rows columns"]]:
        """The matrices with their changes added."""
        for expert, matrix in zip(experts, self.base.matrices(experts, dtype), strict=True):
            if self.part is None:
                yield matrix
            else:
                change = self.part.up[expert] @ self.part.down[expert] * self.part.scale
                yield (matrix + change).to(dtype)

    def linear(
        self,
        experts: Sequence[int],
        inputs: Sequence[Float[Tensor, "token columns"]],
        bias: Float[Tensor, "expert rows"],
    ) -> list[Float[Tensor, "token rows"]]:
        frozen = frozen_linear(self.base, experts, inputs, bias, self.kernels)
        if self.part is None:
            return frozen
        pairs = zip(frozen, self.part(experts, inputs), strict=True)
        return [(y + change).to(y.dtype) for y, change in pairs]


class RecomputedBlock(nn.Module):
    """A layer that keeps only its input, and computes the rest again in the backward pass."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, *given: Any) -> Float[Tensor, "batch seq hidden"]:
        again = checkpoint(self.block, *given, use_reentrant=False, preserve_rng_state=False)
        return cast(Tensor, again)


class AdaptedTransformer(Transformer):
    """`base` with low-rank parts. It shares all weights, and `base` stays as it is.

    Args:
        recompute: keep only the input of each layer for the backward pass.
        kernels: compute attention and the products with packed experts, for whole sequences; None
            for the reference modules.
    """

    def __init__(
        self,
        base: Transformer,
        lora: Lora,
        *,
        recompute: bool = False,
        kernels: Backend | None = None,
    ) -> None:
        nn.Module.__init__(self)  # Transformer's would make new weights
        twin = base.with_parts(base.parts)
        self.config, self.parts, self.make_experts = base.config, base.parts, base.make_experts
        self.embedding, self.norm, self.unembedding = twin.embedding, twin.norm, twin.unembedding
        blocks = cast("list[Block]", list(twin.block))
        for block, parts in zip(blocks, lora.parts(), strict=True):
            wrap_modules(block, parts, kernels)
        self.block = nn.ModuleList(map(RecomputedBlock, blocks) if recompute else blocks)
        self._adapt_again = lambda parts: AdaptedTransformer(
            base.with_parts(parts), lora, recompute=recompute, kernels=kernels
        )
        self.train(base.training)

    def with_parts(self, parts: Parts) -> Transformer:
        return self._adapt_again(parts)


def wrap_modules(block: Block, parts: Mapping[str, Part], kernels: Backend | None) -> None:
    """Replace the modules of a layer that have low-rank parts by wrappers."""
    found: dict[str, Any] = dict(parts.items())
    attn, mlp = block.attn, block.mlp
    keys = attn.kv_heads * attn.head_dim
    if found.keys() & {"q_proj", "k_proj", "v_proj"}:
        rows = (attn.heads * attn.head_dim, keys, keys)
        three = [found.get(name) for name in ("q_proj", "k_proj", "v_proj")]
        attn.qkv = cast(Any, AdaptedLinear(attn.qkv, three, rows))
    if part := found.get("o_proj"):
        attn.out = cast(Any, AdaptedLinear(attn.out, [part], [attn.out.out_features]))
    if part := found.get("router"):
        mlp.gate = cast(Any, AdaptedLinear(mlp.gate, [part], [mlp.gate.out_features]))
    mlp.mlp1_weight = AdaptedExperts(mlp.mlp1_weight, found.get("gate_up_proj"), kernels)
    mlp.mlp2_weight = AdaptedExperts(mlp.mlp2_weight, found.get("down_proj"), kernels)
    if kernels is not None:
        block.attn = cast(Any, KernelAttention(attn, kernels))
