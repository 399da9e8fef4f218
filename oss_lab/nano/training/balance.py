"""The load-balance loss, over what the whole run chooses and not over one group of rows.

A group holds a single task: to spread its tokens evenly over the experts would forbid what one
wants to see, experts for a task. So the share of each expert is a running mean over groups, as in
the global-batch loss of arXiv 2501.11873; the product with the router's probabilities is the Switch
Transformer's (arXiv 2101.03961, equation 4).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.config import ModelConfig

DECAY = 0.9  # of the running shares, a step


class RouterWatch:
    """Keeps what the routers of one group's forwards computed, with its gradient."""

    def __init__(self, layers: int) -> None:
        self._logits: list[list[Tensor]] = [[] for _ in range(layers)]
        self._ids: list[list[Tensor]] = [[] for _ in range(layers)]

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        """The hooks of a forward."""
        if layer is not None and point == "moe.router_logits":
            self._logits[layer].append(x)
        elif layer is not None and point == "moe.expert_ids":
            self._ids[layer].append(x)
        return x

    def balance(
        self, real: list[Bool[Tensor, "row seq"]], share: Float[Tensor, "layer expert"]
    ) -> tuple[Tensor, Float[Tensor, "layer expert"]]:
        """(loss, shares of the slots in this group); the loss is 1 when all is even.

        Args:
            real: for each forward watched, where its tokens are not padding.
            share: each expert's running share of the slots.
        """
        experts = share.shape[1]
        probability = _over_tokens(self._logits, real, lambda x: x.softmax(-1).mean(0))
        chosen = _over_tokens(
            self._ids, real, lambda x: torch.bincount(x.flatten(), minlength=experts) / x.numel()
        )
        return experts * (share * probability).sum(-1).mean(), chosen


def _over_tokens(
    kept: list[list[Tensor]], real: list[Tensor], reduced: Callable[[Tensor], Tensor]
) -> Tensor:
    """One vector a layer, over the tokens of all forwards."""
    joined = [torch.cat([x[m] for x, m in zip(each, real, strict=True)]) for each in kept]
    return torch.stack([reduced(x) for x in joined])


def even_share(config: ModelConfig) -> Float[Tensor, "layer expert"]:
    """Every expert equally busy: where the running shares begin."""
    return torch.full((config.num_hidden_layers, config.num_experts), 1 / config.num_experts)


def busiest(share: Float[Tensor, "layer expert"]) -> float:
    """The busiest expert's share over an even one, averaged over the layers."""
    return (share.amax(-1) * share.shape[1]).mean().item()
