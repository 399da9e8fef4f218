"""How much each head and each expert slot adds to one token's logit: direct logit attribution.

The last residual stream is the sum of the embedding and of what every layer added. The last norm
divides all of it by one number, and the unembedding is linear, so the logit is a sum too: of the
embedding, each head, each attention's bias, and each expert slot with its weight. What a part does
by way of later layers is not in it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.model.transformer import Block

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

POINTS = (
    "embed",
    "attn.head_out",
    "moe.expert_out",
    "moe.expert_weights",
    "resid.post",
    "out.logits",
)


ADDED = ("resid.pre", "attn.out", "resid.mid", "moe.out", "resid.post", "out.norm", "out.logits")
"""Where a change would be a part of the sum of its own."""


@dataclass(frozen=True)
class Attribution:
    """The parts of one logit, or of a difference of two; they add up to `logit`.

    Attributes:
        position: where the prediction is made.
        bias: of the attention's output, a part of its own.
    """

    position: int
    token: int
    against: int | None
    logit: float
    embedding: float
    heads: Float[Tensor, "layer head"]
    bias: Float[Tensor, "layer"]
    slots: Float[Tensor, "layer slot"]

    @property
    def total(self) -> float:
        """The sum of all parts."""
        parts = (self.heads, self.bias, self.slots)
        return self.embedding + sum(float(part.sum()) for part in parts)


@torch.no_grad()
def attribution(
    lab: "Lab", of: "Prompt", position: int, token: int, against: int | None = None
) -> Attribution:
    """The parts of the logit that `token` gets behind `position`, less those of `against`.

    Raises:
        LabError: there is no such position or token, or an intervention adds to the sum itself.
    """
    tokens = lab.tokens_of(of)
    if added := [each for each in lab.interventions if each.writes in ADDED]:
        raise LabError(f"end {added[0]}: what it adds to the sum is no head's and no expert's")
    check_index("position", position, len(tokens))
    check_tokens([token] if against is None else [token, against], lab.config, name="the pair")
    trace = lab.trace(tokens[: position + 1], POINTS, positions=[position])
    layers = range(lab.config.num_hidden_layers)
    last = trace.tensor("resid.post", layers[-1])[0].double()
    norm, rows = lab.model.norm, lab.model.unembedding.weight.cpu().double()
    direction = rows[token] - (0 if against is None else rows[against])
    direction = direction * norm.scale.cpu().double() / (last.square().mean() + norm.eps).sqrt()
    logits = trace.tensor("out.logits")[0].double()
    biases = [cast(Block, lab.model.block[n]).attn.out.bias.cpu().double() for n in layers]
    slots = [
        trace.tensor("moe.expert_out", n)[0].double()
        * trace.tensor("moe.expert_weights", n)[0, :, None]
        for n in layers
    ]
    return Attribution(
        position,
        token,
        against,
        float(logits[token] - (0 if against is None else logits[against])),
        float(trace.tensor("embed")[0].double() @ direction),
        torch.stack([trace.tensor("attn.head_out", n)[0].double() @ direction for n in layers]),
        torch.stack([bias @ direction for bias in biases]),
        torch.stack([slot @ direction for slot in slots]),
    )
