"""How much each head and each expert slot adds to one token's logit: direct logit attribution.

The final residual stream is the sum of the embedding and of every layer's output. The final norm
divides this sum by one number, and the unembedding is linear, so the logit is a sum too. Its parts
are the embedding, each head, each attention output bias, and each expert slot times its weight.
Effects through later layers are not included.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments
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
"""Points where an intervention adds a part that belongs to no head or expert."""


@dataclass(frozen=True)
class Attribution:
    """The parts of one logit, or of a difference of two logits. They add up to `logit`.

    Attributes:
        position: the prediction is made after this position.
        bias: the part of each layer's attention output bias.
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


@check_arguments
@torch.no_grad()
def attribution(
    lab: "Lab", of: "Prompt", position: int, token: int, against: int | None = None
) -> Attribution:
    """The parts of the logit of `token` after `position`, minus those of `against`.

    Raises:
        LabError: the position or token does not exist, an active intervention writes to one of
            the points in ADDED, or the lab's part rms_norm is replaced.
    """
    lab.model.require_whole("attribution")
    tokens = lab.tokens_of(of)
    if "rms_norm" in lab.parts:
        raise LabError(
            "the parts of a logit add up for the library's final norm only: use a lab without the"
            " part rms_norm"
        )
    if added := [each for each in lab.interventions if each.writes in ADDED]:
        raise LabError(
            f"{added[0]} changes the residual stream outside heads and experts, so the parts would"
            " not add up: end it first"
        )
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
