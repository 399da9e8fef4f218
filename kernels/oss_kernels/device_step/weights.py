"""The weights that a decode step reads, as contiguous tensors on one device."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from oss_kernels.experts.weights import ExpertWeights


@dataclass(frozen=True)
class LayerWeights:
    """One layer. The rows of qkv are the heads of q, then those of k, then those of v.

    Attributes:
        window: how many of the last tokens the layer sees; None if it sees all.
    """

    attn_norm: Float[Tensor, "hidden"]
    qkv: Float[Tensor, "rows hidden"]
    qkv_bias: Float[Tensor, "rows"]
    sinks: Float[Tensor, "head"]
    out: Float[Tensor, "hidden head_columns"]
    out_bias: Float[Tensor, "hidden"]
    moe_norm: Float[Tensor, "hidden"]
    router: Float[Tensor, "expert hidden"]
    router_bias: Float[Tensor, "expert"]
    experts: ExpertWeights
    window: int | None


@dataclass(frozen=True)
class StepWeights:
    """The whole model.

    Attributes:
        cos, sin: (cos, cos) and (-sin, sin) for the halves of a head, at every position. Their
            length is the longest text.
        slots: experts per token.
        alpha, limit: the constants of the experts' activation function.
    """

    embedding: Float[Tensor, "vocab hidden"]
    layers: tuple[LayerWeights, ...]
    norm: Float[Tensor, "hidden"]
    unembedding: Float[Tensor, "vocab hidden"]
    cos: Float[Tensor, "capacity head_dim"]
    sin: Float[Tensor, "capacity head_dim"]
    slots: int
    eps: float
    alpha: float
    limit: float

    @property
    def capacity(self) -> int:
        return len(self.cos)

    @property
    def head_dim(self) -> int:
        return self.cos.shape[1]

    @property
    def heads(self) -> int:
        return len(self.layers[0].sinks)

    @property
    def kv_heads(self) -> int:
        return (len(self.layers[0].qkv) // self.head_dim - self.heads) // 2

    def count_bytes(self, batch: int, tokens: int) -> int:
        """Bytes of weights, keys and values that a step of `batch` rows reads, each once.

        Rows are assumed to share no expert, and each to have read `tokens` tokens.
        """
        kv_row = 2 * self.kv_heads * self.head_dim * self.embedding.element_size()
        total = self.unembedding.nbytes + self.norm.nbytes
        for layer in self.layers:
            packed = sum(each.nbytes for each in vars(layer.experts).values())
            total += batch * self.slots * packed // layer.experts.experts
            total += sum(each.nbytes for each in vars(layer).values() if hasattr(each, "nbytes"))
            total += batch * kv_row * min(tokens, layer.window or tokens)
        return total
