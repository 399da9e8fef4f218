"""Which part of every tensor of a model belongs to which process.

A query head needs the keys of its kv head only, so both stay together: a process has the rows of
`qkv` for its kv heads and for the query heads that they serve, and the columns of `out` that read
these heads. Experts and the rows of the vocabulary's tables are divided in order.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError


@dataclass(frozen=True)
class Part:
    """The part of process `rank` of `count`.

    Raises:
        LabError: the model cannot be split over so many processes.
    """

    config: ModelConfig
    rank: int
    count: int

    def __post_init__(self) -> None:
        config = self.config
        possible = [
            count for count in range(1, config.num_key_value_heads + 1) if fits(config, count)
        ]
        if self.count not in possible:
            choices = ", ".join(map(str, possible[:-1])) + " or " * (len(possible) > 1)
            raise LabError(
                f"a model with {config.num_key_value_heads} kv heads, {config.num_experts} experts"
                f" and {config.vocab_size} tokens cannot be split over {self.count} processes; use"
                f" {choices}{possible[-1]}"
            )

    def share(self, total: int) -> slice:
        """This process's part of `total` things in order; parts differ by at most one."""
        return slice(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    @property
    def heads(self) -> slice:
        return self.share(self.config.num_attention_heads)

    @property
    def kv_heads(self) -> slice:
        return self.share(self.config.num_key_value_heads)

    @property
    def experts(self) -> slice:
        return self.share(self.config.num_experts)

    @property
    def vocab(self) -> slice:
        return self.share(self.config.vocab_size)

    def cut(self, name: str, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The part of a tensor of `layouts.tensor_table`: a view, or a copy for `qkv` and `out`.

        Names are those of the original layout.
        """
        if name in ("embedding.weight", "unembedding.weight"):
            return tensor[self.vocab]
        _, _, inside = name.split(".", 2) if name.startswith("block.") else ("", "", "")
        if inside == "attn.sinks":
            return tensor[self.heads]
        if inside in ("attn.qkv.weight", "attn.qkv.bias"):
            return self._cut_heads(tensor)
        if inside == "attn.out.weight":
            return tensor[:, self._rows(self.heads)].contiguous()
        if inside.startswith(("mlp.mlp1_", "mlp.mlp2_")):
            return tensor[self.experts]
        return tensor

    def _cut_heads(self, qkv: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "part ..."]:
        """The rows of this process's queries, keys and values."""
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        q, k, v = qkv.split([count * self.config.head_dim for count in (heads, kv_heads, kv_heads)])
        kv_rows = self._rows(self.kv_heads)
        return torch.cat((q[self._rows(self.heads)], k[kv_rows], v[kv_rows]))

    def _rows(self, heads: slice) -> slice:
        """The rows, or columns, of these heads in a matrix."""
        size = self.config.head_dim
        return slice(heads.start * size, heads.stop * size)


def fits(config: ModelConfig, count: int) -> bool:
    """Whether every process gets the same number of kv heads and tokens, and an expert."""
    shared = config.num_key_value_heads % count == 0 and config.vocab_size % count == 0
    return shared and count <= config.num_experts
