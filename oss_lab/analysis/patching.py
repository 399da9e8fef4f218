"""Where does a prediction come from? One value at a time from another run, layer by position.

Two sequences of equal length lead to different tokens: `clean` to a target, `corrupted` to
another. The corrupted one is run again with one value of the clean run in it, for every layer and
position. What comes before a position is read from a forked cache, and layers are the rows of a
batch. Before the first position that differs nothing is run, and the change is exactly 0.

The effect of a patched value includes all that follows from it in later layers and positions
(activation patching; arXiv 2404.15255 explains how to read it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.forwards import build_cache, choose_engine
from oss_lab.analysis.patched_rows import Site, swept
from oss_lab.analysis.tracing import channels_by, trace_requests
from oss_lab.engine.choice import Chosen
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request, check_tokens
from oss_lab.errors import LabError
from oss_lab.hooks.cost import BUDGET, check_budget
from oss_lab.hooks.interventions.base import writable
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Selection
from oss_lab.progress import progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab

Metric = Callable[[Float[Tensor, "vocab"]], Any]
"""A score of the logits of the last position: one number."""

RESIDUAL = ("resid.pre", "resid.mid", "resid.post", "attn.out", "moe.out")


@dataclass(frozen=True)
class Score:
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
        point: which value was patched.
        target, against: the tokens that the clean and the corrupted sequence lead to.
        first: the first position where the sequences differ.
        logprob, difference, metric: raw scores of the patched runs, as in `Score`; `axis` is
            `position` or `head`. A patched head is patched at every position.
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
    metric: Float[Tensor, "layer site"] | None = None

    def __repr__(self) -> str:
        layers, sites = self.logprob.shape
        return f"<Patching of {self.point} in {layers} layers, by {self.axis} ({sites})>"

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
        point: one with a value per token and layer, such as those of RESIDUAL; `attn.z` is all
            heads.
        target, against: by default the likeliest tokens after the two sequences.
        metric: another score of the last logits [vocab], a number; in `Patching.metric`.

    Raises:
        LabError: the sequences have different lengths, do not differ or lead to the same token; the
            point cannot be patched.
    """
    check_point(point)
    engine = choose_engine(lab, writes=[point]).engine  # for all runs, so that nothing else differs
    pair = Pair.of(lab, engine, clean, corrupted, target, against, metric)
    values = pair.values(lab, engine, point)
    cache = build_cache(lab, corrupted, engine)
    sites: list[Site] = [(layer, None) for layer in range(lab.config.num_hidden_layers)]
    places = range(pair.first, len(clean))
    found: list[Tensor] = []
    for place in progress(places, "patching", "position"):
        here = [of_layer[place - pair.first, None] for of_layer in values]
        found.append(swept(lab, corrupted, cache, place, point, here, sites, engine))
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
    """Patch what one head gathered (`attn.z`) at all positions, for every layer and head.

    Arguments and errors as in `patch_positions`.
    """
    engine = choose_engine(lab, writes=["attn.z"]).engine
    pair = Pair.of(lab, engine, clean, corrupted, target, against, metric)
    layers, heads = lab.config.num_hidden_layers, lab.config.num_attention_heads
    sites: list[Site] = [(layer, head) for layer in range(layers) for head in range(heads)]
    values = pair.values(lab, engine, "attn.z")
    cache = build_cache(lab, corrupted, engine)
    logits = swept(lab, corrupted, cache, pair.first, "attn.z", values, sites, engine)
    return pair.build_patching("attn.z", "head", logits.view(layers, heads, -1))


@dataclass(frozen=True)
class Pair:
    """Two sequences, and the predictions that they lead to."""

    sequences: tuple[list[int], list[int]]
    first: int
    target: int
    against: int
    clean: Score
    corrupted: Score
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
                " choose two of equal length, so that each position has its counterpart"
            )
        differing = (n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
        if (first := next(differing, None)) is None:
            raise LabError("both sequences are the same; change a token")
        requests = [Request(tuple(ids), effects=lab.effects()) for ids in (clean, corrupted)]
        channels = channels_by(lab.tokenizer)
        read = [read_logits(engine, [request], 1, channels)[0] for request in requests]
        logits = [rows[0].double().cpu() for rows in read]
        if not all(bool(row.isfinite().all()) for row in logits):
            raise LabError(
                "the logits hold NaN or infinity; the weights or an intervention broke them"
            )
        target = int(logits[0].argmax()) if target is None else target
        against = int(logits[1].argmax()) if against is None else against
        check_tokens([target, against], lab.config, name="the pair of tokens")
        if target == against and metric is None:
            raise LabError(
                f"both sequences lead to token {target}; name another target, or change the"
                " corrupted sequence"
            )
        scores = [
            Score(float(a), float(b), measure(metric, row))
            for row in logits
            for a, b in [score(row, target, against)]
        ]
        if scores[0].difference == scores[1].difference and metric is None:
            raise LabError(
                "both sequences give the same logit difference; there is none to restore"
            )
        pair = list(clean), list(corrupted)
        return cls(pair, first, target, against, scores[0], scores[1], metric)

    def values(self, lab: "Lab", engine: Engine, point: str) -> list[Tensor]:
        """What the clean run has there, by layer, from the first differing position on."""
        clean = self.sequences[0]
        selection = Selection((point,), positions=tuple(range(self.first, len(clean))))
        check_budget(lab.model, selection, [len(clean)], BUDGET)
        request = Request(tuple(clean), selection=selection, effects=lab.effects())
        (trace,) = trace_requests(Chosen(engine), lab.tokenizer, [request], lab.digest)
        layers = range(lab.config.num_hidden_layers)
        return [trace.tensor(point, layer).to(lab.model.device) for layer in layers]

    def build_patching(
        self, point: str, axis: str, logits: Float[Tensor, "layer site vocab"]
    ) -> Patching:
        """The result; positions before the first that differs have the corrupted run's scores."""
        logprob, difference = score(logits, self.target, self.against)
        metric = None
        if self.metric is not None:
            numbers = [measure(self.metric, row) for row in logits.flatten(0, 1)]
            metric = torch.tensor(numbers).view(logits.shape[:2])
        if axis == "position":
            logprob = F.pad(logprob, (self.first, 0), value=self.corrupted.logprob)
            difference = F.pad(difference, (self.first, 0), value=self.corrupted.difference)
            if metric is not None:
                metric = F.pad(metric, (self.first, 0), value=self.corrupted.metric)
        ends = self.target, self.against, self.first, self.clean, self.corrupted
        return Patching(point, axis, *ends, logprob, difference, metric)


def check_point(point: str) -> None:
    """Raise LabError for a point without one activation for each token and layer."""
    writable(point)
    if not (POINTS[point].layered and "seq" in POINTS[point].axes):
        raise LabError(f"{point} has no value for each token and layer; patch another point")
    if "key" in POINTS[point].axes or POINTS[point].kind != "activation":
        raise LabError(f"{point} is not an activation of a token; patch one, such as {RESIDUAL[0]}")


def measure(metric: Metric | None, logits: Float[Tensor, "vocab"]) -> float | None:
    """The caller's score of one row of logits.

    Raises:
        LabError: it is not a number.
    """
    if metric is None:
        return None
    found = metric(logits)
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):
        raise LabError(f"the metric must return a number, got {found!r}") from None


def score(logits: Float[Tensor, "*row vocab"], target: int, against: int) -> tuple[Tensor, Tensor]:
    """Log-probability of the target, and its logit minus the other token's."""
    logprobs = logits.log_softmax(-1)
    return logprobs[..., target], logits[..., target] - logits[..., against]
