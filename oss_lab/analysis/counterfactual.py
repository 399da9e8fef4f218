"""What happens if one expert of one token is ablated, or replaced by the next best?

All layers and slots run as one batch: the earlier tokens are read once, and the token itself runs
over a forked cache with one row per change. Only this token's choice of experts changes; the keys
and values of earlier tokens stay the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.analysis.forwards import build_cache, choose_engine, run_forward
from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.interventions.experts import check_next_best, find_next_best

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt


@dataclass(frozen=True)
class Counterfactuals:
    """How the prediction at one position changes with each of its experts.

    Attributes:
        target: the token id whose log-probability is compared.
        logprob: of the target with nothing changed, in nats.
        experts: the chosen experts.
        next_best: the expert with the highest router logit that was not chosen.
        without: change of the target's log-probability with an expert ablated; the others keep
            their weights.
        instead: the same with the next best expert in its place; all weights are recomputed.
        without_kl, instead_kl: Kullback-Leibler divergence of the changed prediction from the
            unchanged one, in nats.
    """

    position: int
    target: int
    logprob: float
    experts: Int[Tensor, "layer slot"]
    next_best: Int[Tensor, "layer"]
    without: Float[Tensor, "layer slot"]
    instead: Float[Tensor, "layer slot"]
    without_kl: Float[Tensor, "layer slot"]
    instead_kl: Float[Tensor, "layer slot"]


@check_arguments
@torch.no_grad()
def counterfactuals(
    lab: "Lab", of: "Prompt", position: int, target: int | None = None
) -> Counterfactuals:
    """Ablate and replace every expert of the token at `position`, one at a time.

    Args:
        of: a sequence; of the tokens after `position`, only the next one is used.
        target: the token id to compare; by default the next token.

    Raises:
        LabError: the position does not exist, or there is no next token and no target.
    """
    tokens = lab.tokens_of(of)
    check_index("position", position, len(tokens))
    if target is None:
        if position + 1 == len(tokens):
            raise LabError(f"no token follows position {position}: pass a target")
        target = tokens[position + 1]
    check_tokens([target], lab.config, name="the target")
    check_next_best(lab.config)
    changes = OneChangePerRow(lab.config.num_hidden_layers, lab.config.experts_per_token)
    engine = choose_engine(lab, changes.POINTS, changes.POINTS).engine
    cache = build_cache(lab, tokens[:position], engine)
    copies = torch.full((changes.rows, 1), tokens[position], device=lab.model.device)
    rows = cache.fork(batch=changes.rows)
    logits = run_forward(lab, copies, rows, last=1, also=changes, engine=engine)[:, 0]
    logprobs = logits.double().log_softmax(-1).cpu()
    plain = logprobs[0]
    deltas = (logprobs[1:, target] - plain[target]).float()
    divergence = (plain.exp() * (plain - logprobs[1:])).sum(-1).float()
    shape = (2, changes.layers, changes.slots)
    without, instead = deltas.view(shape)
    without_kl, instead_kl = divergence.view(shape)
    return Counterfactuals(
        position,
        target,
        float(plain[target]),
        torch.stack(changes.chosen).cpu(),
        torch.stack(changes.next_best).cpu(),
        without,
        instead,
        without_kl,
        instead_kl,
    )


class OneChangePerRow:
    """Hooks for a batch of copies of one token.

    Row 0 is unchanged. Then there are two rows for each layer and slot: first all rows with that
    expert ablated, then all rows with it replaced by the next best.
    """

    POINTS = ("moe.router_logits", "moe.expert_ids", "moe.expert_weights")

    def __init__(self, layers: int, slots: int) -> None:
        self.layers, self.slots = layers, slots
        self.rows = 1 + 2 * layers * slots
        self.chosen: list[Tensor] = []  # [slot] of row 0, one per layer
        self.next_best: list[Tensor] = []
        self.logits: Tensor

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if layer is None or point not in self.POINTS:
            return x
        if point == "moe.router_logits":
            self.logits = x
            return x
        first, best = 1 + layer * self.slots, None
        if point == "moe.expert_ids":
            first += self.layers * self.slots
            best = find_next_best(self.logits, x)[:, 0]
            if bool((x[0, 0] == best[0]).any() or self.logits[0, 0, best[0]] == -torch.inf):
                raise LabError(
                    f"every expert of layer {layer} that was not chosen is banned, so there is no"
                    " next best"
                )
            self.chosen.append(x[0, 0].clone())
            self.next_best.append(best[0])
        rows = torch.arange(first, first + self.slots, device=x.device)
        x = x.clone()
        ablated = torch.zeros_like(x[rows, 0, 0])
        x[rows, 0, rows - first] = ablated if best is None else best[rows].to(x.dtype)
        return x
