"""The load-balancing loss of the experts, averaged over many groups of rows.

A group contains a single task. Spreading the tokens of one group evenly over the experts would
prevent experts from specializing in a task. The share of each expert is therefore a running mean
over groups, as in the global-batch loss of arXiv 2501.11873. Its product with the router's
probabilities is that of the Switch Transformer (arXiv 2101.03961, equation 4).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.config import ModelConfig

DECAY = 0.9  # of the running shares, per step


class RouterRecorder:
    """Collects router logits and chosen experts from one group's forward passes, with gradients."""

    def __init__(self, layers: int) -> None:
        self._logits: list[list[Tensor]] = [[] for _ in range(layers)]
        self._ids: list[list[Tensor]] = [[] for _ in range(layers)]

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        """Pass this object as the `hooks` of a forward pass."""
        if layer is not None and point == "moe.router_logits":
            self._logits[layer].append(x)
        elif layer is not None and point == "moe.expert_ids":
            self._ids[layer].append(x)
        return x

    def compute_loss(
        self, real: list[Bool[Tensor, "row seq"]], share: Float[Tensor, "layer expert"]
    ) -> tuple[Tensor, Float[Tensor, "layer expert"]]:
        """(loss, each expert's share of the slots in this group); the loss of an even load is 1.

        Args:
            real: for each forward pass, which of its tokens are not padding.
            share: each expert's running share of the slots.
        """
        experts = share.shape[1]
        probability = _over_tokens(self._logits, real, lambda x: x.softmax(-1).mean(0))
        chosen = _over_tokens(
            self._ids, real, lambda x: torch.bincount(x.flatten(), minlength=experts) / x.numel()
        )
        return experts * (share * probability).sum(-1).mean(), chosen


def _over_tokens(
    kept: list[list[Tensor]], real: list[Tensor], reduce: Callable[[Tensor], Tensor]
) -> Tensor:
    """One vector per layer, over the tokens of all forward passes."""
    joined = [torch.cat([x[m] for x, m in zip(each, real, strict=True)]) for each in kept]
    return torch.stack([reduce(x) for x in joined])


def even_share(config: ModelConfig) -> Float[Tensor, "layer expert"]:
    """The initial running shares: the same for every expert."""
    return torch.full((config.num_hidden_layers, config.num_experts), 1 / config.num_experts)


def busiest_load(share: Float[Tensor, "layer expert"]) -> float:
    """The busiest expert's share relative to an even share, averaged over the layers."""
    return (share.amax(-1) * share.shape[1]).mean().item()
