"""Where does a prediction come from? One value at a time from another run, layer by position.

Two sequences of equal length lead to different tokens: `clean` to a target, `corrupted` to
another. The corrupted one is run again with one value of the clean run in it, for every layer and
position. What comes before a position is read from a forked cache, and layers are the rows of a
batch. Where both sequences agree so far nothing is run, and the change is exactly 0.

What a patched value does is all that follows from it, in later layers and positions too
(activation patching; arXiv 2404.15255 on how to read it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.patched_rows import Site, swept
from oss_lab.engine.generate import check_tokens
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.base import writable
from oss_lab.hooks.points import POINTS
from oss_lab.lab import Lab
from oss_lab.progress import progress

RESIDUAL = ("resid.pre", "resid.mid", "resid.post", "attn.out", "moe.out")


@dataclass(frozen=True)
class Score:
    """A prediction: of the target in nats, and by how much its logit is ahead of the other's."""

    logprob: float
    difference: float


@dataclass(frozen=True)
class Patching:
    """What each patched value does to the prediction behind the last position.

    Attributes:
        point: which value was put in.
        target, against: the tokens that the clean and the corrupted sequence lead to.
        first: the first position where the sequences differ.
        logprob, difference: raw scores of the patched runs, as in `Score`; `axis` is `position` or
            `head`. A patched head is patched at every position.
    """

    point: str
    axis: str
    target: int
    against: int
    first: int
    clean: Score
    corrupted: Score
    logprob: Float[Tensor, "layer site"]
    difference: Float[Tensor, "layer site"]

    @property
    def restored(self) -> Float[Tensor, "layer site"]:
        """The difference, rescaled: 0 is the corrupted run, 1 the clean one."""
        start = self.corrupted.difference
        return (self.difference - start) / (self.clean.difference - start)

    @property
    def restored_logprob(self) -> Float[Tensor, "layer site"]:
        """The log-probability of the target, rescaled in the same way."""
        start = self.corrupted.logprob
        return (self.logprob - start) / (self.clean.logprob - start)


@torch.inference_mode()
def patch_positions(
    lab: Lab,
    clean: Sequence[int],
    corrupted: Sequence[int],
    point: str = "resid.pre",
    *,
    target: int | None = None,
    against: int | None = None,
) -> Patching:
    """Patch the point at every layer and position, one a run.

    Args:
        point: a value a token and layer, such as those of RESIDUAL; `attn.z` is all heads.
        target, against: by default the likeliest tokens behind the two sequences.

    Raises:
        LabError: the sequences have other lengths, do not differ or lead to the same token; the
            point cannot be patched.
    """
    pair = Pair.of(lab, clean, corrupted, target, against)
    values, cache = pair.values(lab, point), lab.build_cache(corrupted)
    sites: list[Site] = [(layer, None) for layer in range(lab.config.num_hidden_layers)]
    places = range(pair.first, len(clean))
    found: list[Tensor] = []
    for place in progress(places, "patching", "position"):
        here = [of_layer[place - pair.first, None] for of_layer in values]
        found.append(swept(lab, corrupted, cache, place, point, here, sites))
    return pair.scored(point, "position", torch.stack(found, dim=1))


@torch.inference_mode()
def patch_heads(
    lab: Lab,
    clean: Sequence[int],
    corrupted: Sequence[int],
    *,
    target: int | None = None,
    against: int | None = None,
) -> Patching:
    """Patch what one head gathered (`attn.z`) at all positions, for every layer and head.

    Arguments and errors as in `patch_positions`.
    """
    pair = Pair.of(lab, clean, corrupted, target, against)
    layers, heads = lab.config.num_hidden_layers, lab.config.num_attention_heads
    sites: list[Site] = [(layer, head) for layer in range(layers) for head in range(heads)]
    values = pair.values(lab, "attn.z")
    logits = swept(lab, corrupted, lab.build_cache(corrupted), pair.first, "attn.z", values, sites)
    return pair.scored("attn.z", "head", logits.view(layers, heads, -1))


@dataclass(frozen=True)
class Pair:
    """Two sequences, and the predictions that they lead to."""

    sequences: tuple[list[int], list[int]]
    first: int
    target: int
    against: int
    clean: Score
    corrupted: Score

    @classmethod
    def of(
        cls,
        lab: Lab,
        clean: Sequence[int],
        corrupted: Sequence[int],
        target: int | None,
        against: int | None,
    ) -> "Pair":
        check_tokens(clean, lab.config, name="the clean sequence")
        check_tokens(corrupted, lab.config, name="the corrupted sequence")
        if len(clean) != len(corrupted):
            raise LabError(
                f"the clean sequence has {len(clean)} tokens, the corrupted one {len(corrupted)};"
                " choose two of equal length, so that each position has its counterpart"
            )
        differing = (n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
        if (first := next(differing, None)) is None:
            raise LabError("both sequences are the same; change a token")
        logits = [lab.logits(tokens, last=1)[0].double().cpu() for tokens in (clean, corrupted)]
        target = int(logits[0].argmax()) if target is None else target
        against = int(logits[1].argmax()) if against is None else against
        check_tokens([target, against], lab.config, name="the pair of tokens")
        if target == against:
            raise LabError(
                f"both sequences lead to token {target}; name another target, or change the"
                " corrupted sequence"
            )
        scores = [Score(*map(float, score(row, target, against))) for row in logits]
        if scores[0].difference == scores[1].difference:
            raise LabError(
                "both sequences give the same logit difference; there is none to restore"
            )
        return cls((list(clean), list(corrupted)), first, target, against, *scores)

    def values(self, lab: Lab, point: str) -> list[Tensor]:
        """What the clean run has there, by layer, from the first differing position on."""
        writable(point)
        if not (POINTS[point].layered and "seq" in POINTS[point].axes):
            raise LabError(f"{point} has no value for each token and layer; patch another point")
        if "key" in POINTS[point].axes or POINTS[point].kind != "activation":
            raise LabError(f"{point} is no activation of a token; patch one, such as {RESIDUAL[0]}")
        clean = self.sequences[0]
        trace = lab.trace(clean, [point], positions=range(self.first, len(clean)))
        layers = range(lab.config.num_hidden_layers)
        return [trace.tensor(point, layer).to(lab.model.device) for layer in layers]

    def scored(self, point: str, axis: str, logits: Float[Tensor, "layer site vocab"]) -> Patching:
        """The result; positions before the first that differs are as in the corrupted run."""
        logprob, difference = score(logits, self.target, self.against)
        if axis == "position":
            logprob = F.pad(logprob, (self.first, 0), value=self.corrupted.logprob)
            difference = F.pad(difference, (self.first, 0), value=self.corrupted.difference)
        ends = self.target, self.against, self.first, self.clean, self.corrupted
        return Patching(point, axis, *ends, logprob, difference)


def score(logits: Float[Tensor, "*row vocab"], target: int, against: int) -> tuple[Tensor, Tensor]:
    """Log-probability of the target, and by how much its logit is ahead."""
    logprobs = logits.log_softmax(-1)
    return logprobs[..., target], logits[..., target] - logits[..., against]
