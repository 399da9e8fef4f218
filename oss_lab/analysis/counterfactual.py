"""What if one expert of one token had not spoken, or the next best had spoken in its place?

All layers and ranks at once: the tokens before are read once, and the token itself goes through in
one batch over a forked cache, a row for each change. Only this token's choice is changed; what
earlier tokens wrote into the cache stays.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.generate import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.inside import Prompt
from oss_lab.hooks.interventions.changes import Both
from oss_lab.hooks.interventions.experts import best_of_the_rest
from oss_lab.lab import Lab
from oss_lab.model import Tap


@dataclass(frozen=True)
class Counterfactuals:
    """The next token's prediction at one position, under every change of one expert there.

    Attributes:
        target: the id whose log-probability is followed.
        logprob: of the target with nothing changed, in nats.
        experts: who was chosen; `next_best`: who would have been chosen fifth of four.
        without: change of the target's log-probability with an expert silenced; the others keep
            their weights.
        instead: the same with the next best in its place, all weighed anew.
        without_kl, instead_kl: divergence of the changed prediction from the unchanged, in nats.
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


@torch.inference_mode()
def counterfactuals(
    lab: Lab, of: Prompt, position: int, target: int | None = None
) -> Counterfactuals:
    """Every expert of the token at `position` silenced and replaced, one at a time.

    Args:
        of: a sequence; what is behind `position` is not looked at, but for the next token.
        target: the id that is followed; by default the token that comes next.

    Raises:
        LabError: there is no such position, or no next token and no target.
    """
    tokens = lab.tokens_of(of)
    check_index("position", position, len(tokens))
    if target is None:
        if position + 1 == len(tokens):
            raise LabError(f"no token comes behind position {position}; name a target")
        target = tokens[position + 1]
    check_tokens([target], lab.config, name="the target")
    changes = OneSlotARow(lab.config.num_hidden_layers, lab.config.experts_per_token)
    model, device = lab.model, lab.model.device
    cache = lab.build_cache(tokens[:position])
    taps = Both(lab.taps(position), changes)
    here = torch.full((changes.rows, 1), tokens[position], device=device)
    logits = model(here, cache.fork(batch=changes.rows), last=1, taps=taps)[:, 0]
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


class OneSlotARow:
    """Taps for a batch of copies of one token: row 0 unchanged, then a row for each layer and rank
    silenced, then one for each replaced by the next best."""

    points = ("moe.router_logits", "moe.expert_ids", "moe.expert_weights")
    writes = ("moe.expert_ids", "moe.expert_weights")

    def __init__(self, layers: int, slots: int) -> None:
        self.layers, self.slots = layers, slots
        self.rows = 1 + 2 * layers * slots
        self.chosen: list[Tensor] = []  # [slot] of row 0, a layer each
        self.next_best: list[Tensor] = []

    def __call__(self, layer: int | None) -> Tap:
        logits: Tensor

        def change(name: str, x: Tensor) -> Tensor:
            nonlocal logits
            if name == "moe.router_logits":
                logits = x
            elif name == "moe.expert_ids":
                assert layer is not None
                best = best_of_the_rest(logits, x)[:, 0]
                self.chosen.append(x[0, 0].clone())
                self.next_best.append(best[0])
                first = 1 + (self.layers + layer) * self.slots
                rows = torch.arange(first, first + self.slots, device=x.device)
                x = x.clone()
                x[rows, 0, rows - first] = best[rows].to(x.dtype)
            elif name == "moe.expert_weights":
                assert layer is not None
                first = 1 + layer * self.slots
                rows = torch.arange(first, first + self.slots, device=x.device)
                x = x.clone()
                x[rows, 0, rows - first] = 0
            return x

        return change
