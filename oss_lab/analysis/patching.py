"""Where does a prediction come from? Patch in one value at a time from another run.

Two sequences of equal length lead to different tokens: `clean` to a target, `corrupted` to another.
The corrupted sequence is run again with one value of the clean run patched in, for every layer and
position. Earlier positions come from a forked cache, and the layers are the rows of a batch.
Positions before the first difference are not run, because patching them changes nothing.

The effect of a patched value includes its effects in later layers and positions (activation
patching; arXiv 2404.15255 explains how to read it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.forwards import build_cache, choose_engine
from oss_lab.analysis.patched_rows import Site, run_patched
from oss_lab.analysis.tracing import channels_by, trace_requests
from oss_lab.engine.choice import EngineChoice
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request, check_tokens
from oss_lab.errors import LabError
from oss_lab.hooks.cost import BUDGET, check_budget
from oss_lab.hooks.interventions.base import check_writable
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Selection
from oss_lab.model.hook import check_parameters
from oss_lab.progress import track_progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab

Metric = Callable[[Float[Tensor, "vocab"]], Any]
"""A function of the last position's logits that returns one number."""

RESIDUAL = ("resid.pre", "resid.mid", "resid.post", "attn.out", "moe.out")


@dataclass(frozen=True)
class PatchingScore:
    """Scores of one prediction.

    Attributes:
        logprob: of the target, in nats.
        difference: the target's logit minus the other token's.
        metric: the caller's own score.
    """

    logprob: float
    difference: float
    metric: float | None = None


@dataclass(frozen=True, repr=False)
class Patching:
    """What each patched value does to the prediction after the last position.

    Attributes:
        point: the point that was patched.
        target, against: the tokens that the clean and the corrupted sequence lead to.
        first: the first position where the sequences differ.
        logprob, difference, metric: as in `PatchingScore`, of the patched runs, not rescaled.
            `axis` is `position` or `head`; a head is patched at every position.
    """

    point: str
    axis: str
    target: int
    against: int
    first: int
    clean: PatchingScore
    corrupted: PatchingScore
    logprob: Float[Tensor, "layer site"]
    difference: Float[Tensor, "layer site"]
    metric: Float[Tensor, "layer site"] | None = None

    def __repr__(self) -> str:
        layers, sites = self.logprob.shape
        return f"<Patching of {self.point} in {layers} layers, by {self.axis} ({sites})>"

    @property
    def restored(self) -> Float[Tensor, "layer site"]:
        """The logit difference, rescaled: 0 is the corrupted run, 1 the clean one."""
        return rescale(self.difference, self.corrupted.difference, self.clean.difference)

    @property
    def restored_logprob(self) -> Float[Tensor, "layer site"]:
        """The log-probability of the target, rescaled in the same way."""
        return rescale(self.logprob, self.corrupted.logprob, self.clean.logprob)


def rescale(
    score: Float[Tensor, "layer site"], corrupted: float, clean: float
) -> Float[Tensor, "layer site"]:
    """Scores on a scale where 0 is the corrupted run and 1 the clean one.

    Raises:
        LabError: both runs have the same score.
    """
    if clean == corrupted:
        raise LabError(
            f"both runs score {clean:.3g}, so there is no difference to restore; use `metric`"
        )
    return (score - corrupted) / (clean - corrupted)


@torch.no_grad()
def patch_positions(
    lab: "Lab",
    clean: Sequence[int],
    corrupted: Sequence[int],
    point: str = "resid.pre",
    *,
    target: int | None = None,
    against: int | None = None,
    metric: Metric | None = None,
) -> Patching:
    """Patch the point at every layer and position, one per run.

    Args:
        point: a point with one value per token and layer, such as those in RESIDUAL; `attn.z`
            patches all heads together.
        target, against: by default the most likely tokens after the two sequences.
        metric: another function of the last logits [vocab]; its numbers are in `Patching.metric`.

    Raises:
        LabError: the sequences differ in length, are equal or lead to the same token, or the point
            cannot be patched.
    """
    check_point(point)
    engine = choose_engine(lab, writes=[point]).engine  # the same for all runs
    pair = Pair.of(lab, engine, clean, corrupted, target, against, metric)
    values = pair.values(lab, engine, point)
    cache = build_cache(lab, corrupted, engine)
    sites: list[Site] = [(layer, None) for layer in range(lab.config.num_hidden_layers)]
    places = range(pair.first, len(clean))
    found: list[Tensor] = []
    for place in track_progress(places, "patching", "position"):
        here = [of_layer[place - pair.first, None] for of_layer in values]
        found.append(run_patched(lab, corrupted, cache, place, point, here, sites, engine))
    return pair.build_patching(point, "position", torch.stack(found, dim=1))


@torch.no_grad()
def patch_heads(
    lab: "Lab",
    clean: Sequence[int],
    corrupted: Sequence[int],
    *,
    target: int | None = None,
    against: int | None = None,
    metric: Metric | None = None,
) -> Patching:
    """Patch one head's `attn.z` at all positions, for every layer and head.

    Arguments and errors as in `patch_positions`.
    """
    engine = choose_engine(lab, writes=["attn.z"]).engine
    pair = Pair.of(lab, engine, clean, corrupted, target, against, metric)
    layers, heads = lab.config.num_hidden_layers, lab.config.num_attention_heads
    sites: list[Site] = [(layer, head) for layer in range(layers) for head in range(heads)]
    values = pair.values(lab, engine, "attn.z")
    cache = build_cache(lab, corrupted, engine)
    logits = run_patched(lab, corrupted, cache, pair.first, "attn.z", values, sites, engine)
    return pair.build_patching("attn.z", "head", logits.view(layers, heads, -1))


@dataclass(frozen=True)
class Pair:
    """Two sequences, and the predictions after them."""

    sequences: tuple[list[int], list[int]]
    first: int
    target: int
    against: int
    clean: PatchingScore
    corrupted: PatchingScore
    metric: Metric | None = None

    @classmethod
    def of(
        cls,
        lab: "Lab",
        engine: Engine,
        clean: Sequence[int],
        corrupted: Sequence[int],
        target: int | None,
        against: int | None,
        metric: Metric | None = None,
    ) -> "Pair":
        check_tokens(clean, lab.config, name="the clean sequence")
        check_tokens(corrupted, lab.config, name="the corrupted sequence")
        if len(clean) != len(corrupted):
            raise LabError(
                f"the clean sequence has {len(clean)} tokens, the corrupted one {len(corrupted)};"
                " choose two of equal length"
            )
        differing = (n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
        if (first := next(differing, None)) is None:
            raise LabError("both sequences are the same; change a token")
        requests = [
            Request(tuple(ids), effects=lab.collect_effects()) for ids in (clean, corrupted)
        ]
        channels = channels_by(lab.tokenizer)
        read = [read_logits(engine, [request], 1, channels)[0] for request in requests]
        logits = [rows[0].double().cpu() for rows in read]
        if not all(bool(row.isfinite().all()) for row in logits):
            raise LabError(
                "the logits contain NaN or infinity; the weights or an intervention caused it"
            )
        target = int(logits[0].argmax()) if target is None else target
        against = int(logits[1].argmax()) if against is None else against
        check_tokens([target, against], lab.config, name="the pair of tokens")
        if target == against and metric is None:
            raise LabError(
                f"both sequences lead to token {target}; pass another target, or change the"
                " corrupted sequence"
            )
        scores = [
            PatchingScore(float(a), float(b), apply_metric(metric, row))
            for row in logits
            for a, b in [score_logits(row, target, against)]
        ]
        if scores[0].difference == scores[1].difference and metric is None:
            raise LabError(
                "both sequences give the same logit difference: there is nothing to restore"
            )
        pair = list(clean), list(corrupted)
        return cls(pair, first, target, against, scores[0], scores[1], metric)

    def values(self, lab: "Lab", engine: Engine, point: str) -> list[Tensor]:
        """The clean run's values by layer, from the first position that differs."""
        clean = self.sequences[0]
        selection = Selection((point,), positions=tuple(range(self.first, len(clean))))
        check_budget(lab.model, selection, [len(clean)], BUDGET)
        request = Request(tuple(clean), selection=selection, effects=lab.collect_effects())
        (trace,) = trace_requests(EngineChoice(engine), lab.tokenizer, [request], lab.digest)
        layers = range(lab.config.num_hidden_layers)
        return [trace.tensor(point, layer).to(lab.model.device) for layer in layers]

    def build_patching(
        self, point: str, axis: str, logits: Float[Tensor, "layer site vocab"]
    ) -> Patching:
        """The result. Positions before `first` have the scores of the corrupted run."""
        logprob, difference = score_logits(logits, self.target, self.against)
        metric = None
        if self.metric is not None:
            numbers = [apply_metric(self.metric, row) for row in logits.flatten(0, 1)]
            metric = torch.tensor(numbers).view(logits.shape[:2])
        if axis == "position":
            logprob = F.pad(logprob, (self.first, 0), value=self.corrupted.logprob)
            difference = F.pad(difference, (self.first, 0), value=self.corrupted.difference)
            if metric is not None:
                metric = F.pad(metric, (self.first, 0), value=self.corrupted.metric)
        ends = self.target, self.against, self.first, self.clean, self.corrupted
        return Patching(point, axis, *ends, logprob, difference, metric)


def check_point(point: str) -> None:
    """Raise LabError unless the point has one activation for each token and layer."""
    check_writable(point)
    if not (POINTS[point].is_per_layer and "seq" in POINTS[point].axes):
        raise LabError(f"{point} has no value for each token and layer; patch another point")
    if "key" in POINTS[point].axes or POINTS[point].kind != "activation":
        raise LabError(f"{point} is not an activation of a token; patch one, such as {RESIDUAL[0]}")


def apply_metric(metric: Metric | None, logits: Float[Tensor, "vocab"]) -> float | None:
    """The caller's score of one row of logits.

    Raises:
        LabError: it is not a number.
    """
    if metric is None:
        return None
    if not callable(metric):
        raise LabError(f"metric must be a function of the last logits, got {metric!r}")
    check_parameters("metric", metric, "logits")
    found = metric(logits)
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        raise LabError(f"the metric must return a number, got {found!r}") from None


def score_logits(
    logits: Float[Tensor, "*row vocab"], target: int, against: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of the target, and its logit minus the other token's."""
    logprobs = logits.log_softmax(-1)
    return logprobs[..., target], logits[..., target] - logits[..., against]
