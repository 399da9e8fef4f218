"""Which tokens a prediction rests on: gradients at a point, and along a line from a baseline.

A point inside the forward is cut off from what led to it, and the prediction is differentiated by
what stands there. The gradient says what a small change would do; times the input it is a first
guess at each token's part. Integrated gradients (Sundararajan et al., arXiv:1703.01365) go along
the straight line from a baseline to the input, and would add up to the difference that the input
makes, were the model continuous: where the router turns to another expert it jumps, and no gradient
sees that. So the gap, and how often the router turned, stand beside the attributions; with the
experts held as they are with the input, it cannot turn, and the gap is the error of the steps.
Where the model is certain a log-probability is flat and its gradient all but zero: take a
difference of logits, or the line.

Weights stay packed, but the dequantized matrix of every expert that is used behind the point lives
until the backward is done, beyond the budget of the cache: a point in a late layer takes less. The
whole sequence goes through at once, so memory grows with its length too. No kernel has a backward:
the spelt-out forward of the same weights is differentiated, in the model's dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.analysis.forwards import run_forward
from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.points import AFTER_THE_LAYERS, POINTS
from oss_lab.progress import progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

STEPS = 128  # of a line; the gap says whether they are enough
INSIDE = tuple(
    point.name
    for point in POINTS.values()
    if point.axes == ("seq", "hidden") and point.name not in AFTER_THE_LAYERS
)
"""The points that a gradient can be taken at."""


@dataclass(frozen=True)
class Target:
    """What is differentiated: a prediction behind `position`.

    Attributes:
        token: whose logit or log-probability (in nats) it is.
        against: another token, whose own is subtracted.
    """

    position: int
    token: int
    against: int | None = None
    of: Literal["logprob", "logit"] = "logprob"

    def value(self, logits: Float[Tensor, "vocab"]) -> Float[Tensor, ""]:
        """The number, in float32."""
        wide = logits.float()
        scores = wide.log_softmax(-1) if self.of == "logprob" else wide
        return scores[self.token] - (0 if self.against is None else scores[self.against])


@dataclass(frozen=True)
class Gradient:
    """The derivative of `output` by what stood at a point, for the tokens up to the target's
    position; float32.

    Attributes:
        values: what stood there.
    """

    output: float
    values: Float[Tensor, "seq hidden"]
    gradient: Float[Tensor, "seq hidden"]

    @property
    def times_input(self) -> Float[Tensor, "seq"]:
        """Gradient times values, a number a token."""
        return (self.gradient * self.values).sum(-1)


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients, a number a token.

    Attributes:
        output, baseline_output: the target with the input, and with the baseline in its place.
        turns: how often a token's set of experts changed from one step to the next, all layers.
    """

    output: float
    baseline_output: float
    baseline: Float[Tensor, "seq hidden"]
    attributions: Float[Tensor, "seq"]
    steps: int
    turns: int

    @property
    def gap(self) -> float:
        """What the attributions sum to, less the difference that they should sum to: the error of
        the steps, and the jumps where the router turned."""
        return float(self.attributions.sum()) - (self.output - self.baseline_output)


def gradient(
    lab: "Lab", of: "Prompt", target: Target, point: str = "embed", layer: int | None = None
) -> Gradient:
    """The gradient of a prediction by a point of the forward, under the interventions in force.

    Those at the point itself are in its values. A token's set of experts is held as it is.

    Raises:
        LabError: there is no such position, token, point or layer.
    """
    tokens = lab.tokens_of(of)
    check(lab, tokens, target, point, layer)
    leaf = Leaf(point, layer)
    output = run(lab, tokens, target, leaf)
    return Gradient(output, leaf.value, leaf.gradient)


def integrated_gradients(
    lab: "Lab",
    of: "Prompt",
    target: Target,
    point: str = "embed",
    layer: int | None = None,
    *,
    baseline: Float[Tensor, "*seq hidden"] | None = None,
    steps: int = STEPS,
    experts: Literal["free", "held"] = "free",
) -> Integrated:
    """Gradients along the line from a baseline to the input, by the midpoint rule.

    Args:
        baseline: [hidden] for every token, or [seq hidden]. None: the mean of the embedding's rows
            at `embed`, elsewhere the mean of the point over these tokens. Zeros are a poor choice:
            the norms divide by the length, so that nearly all happens next to zero.
        experts: "held" keeps every token's set of experts along the line as it is with the input;
            `baseline_output` is then that of the model with these experts.

    Raises:
        LabError: as in `gradient`, or the baseline has another shape.
    """
    if steps < 1:
        raise LabError(f"steps is {steps}; it must be 1 or more")
    if experts not in ("free", "held"):
        raise LabError(f"experts is {experts!r}; use 'free' or 'held'")
    tokens = lab.tokens_of(of)
    check(lab, tokens, target, point, layer)
    here = Leaf(point, layer)
    output = run(lab, tokens, target, here)
    held = here.experts if experts == "held" else None
    start = begun(lab, here.value, point, baseline)
    last = Leaf(point, layer, start, held)
    baseline_output = run(lab, tokens, target, last)
    way, total, turns = here.value - start, torch.zeros_like(start, dtype=torch.float64), 0
    for step in progress(range(steps), "integrate"):
        leaf = Leaf(point, layer, start + (step + 0.5) / steps * way, held)
        run(lab, tokens, target, leaf)
        total += leaf.gradient
        turns += leaf.turned_from(last)
        last = leaf
    turns += here.turned_from(last)
    attributions = (total / steps * way).sum(-1).float()
    return Integrated(output, baseline_output, start, attributions, steps, turns)


class Leaf:
    """Hooks that put a leaf of the graph in the place of one point, and note the chosen experts.

    Args:
        put: what stands at the point instead of its own value [seq hidden].
        held: who is chosen instead, layer by layer [1 seq slot].
    """

    def __init__(
        self,
        point: str,
        layer: int | None,
        put: Tensor | None = None,
        held: Sequence[Tensor] | None = None,
    ) -> None:
        self.point, self.layer, self.put, self.held = point, layer, put, held
        self.experts: list[Int[Tensor, "1 seq slot"]] = []  # of each layer
        self.leaf: Float[Tensor, "1 seq hidden"]

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point == "moe.expert_ids":
            x = x if self.held is None else self.held[len(self.experts)]
            self.experts.append(x)
        if (point, layer) != (self.point, self.layer):
            return x
        value = x if self.put is None else self.put[None].to(x)
        self.leaf = value.detach().clone().requires_grad_()
        return self.leaf

    @property
    def value(self) -> Float[Tensor, "seq hidden"]:
        """What stood at the point."""
        return self.leaf.detach()[0].float().cpu()

    @property
    def gradient(self) -> Float[Tensor, "seq hidden"]:
        assert self.leaf.grad is not None
        return self.leaf.grad[0].float().cpu()

    def turned_from(self, other: "Leaf") -> int:
        """How many sets of experts are not those of the other's."""
        pairs = zip(self.experts, other.experts, strict=True)
        return sum(
            int((mine.sort(-1).values != theirs.sort(-1).values).any(-1).sum())
            for mine, theirs in pairs
        )


def run(lab: "Lab", tokens: Sequence[int], target: Target, leaf: Leaf) -> float:
    """One forward and one backward; the target's value."""
    with torch.inference_mode(False), torch.enable_grad():
        row = torch.tensor([list(tokens[: target.position + 1])], device=lab.model.device)
        logits = run_forward(lab, row, last=1, also=leaf, engine=lab.engines.reference)
        output = target.value(logits[0, -1])
        output.backward()
    return output.item()


def begun(
    lab: "Lab", values: Float[Tensor, "seq hidden"], point: str, baseline: Tensor | None
) -> Float[Tensor, "seq hidden"]:
    """Where the line begins.

    Raises:
        LabError: the baseline has another shape.
    """
    if baseline is None:
        rows = lab.model.embedding.weight.detach() if point == "embed" else values
        baseline = rows.float().mean(0).cpu()
    if baseline.shape not in (values.shape, values.shape[1:]):
        raise LabError(
            f"the baseline is {list(baseline.shape)}; it must be {list(values.shape[1:])} or"
            f" {list(values.shape)}"
        )
    return baseline.float().cpu().expand_as(values)


def check(lab: "Lab", tokens: Sequence[int], target: Target, point: str, layer: int | None) -> None:
    """Raise LabError for what cannot be differentiated."""
    check_index("position", target.position, len(tokens))
    pair = [target.token] if target.against is None else [target.token, target.against]
    check_tokens(pair, lab.config, name="the target")
    if target.of not in ("logprob", "logit"):
        raise LabError(f"the target is the {target.of!r}; use 'logprob' or 'logit'")
    if point not in INSIDE:
        raise LabError(f"no gradient is taken at {point!r}; the points are {', '.join(INSIDE)}")
    layers = range(lab.config.num_hidden_layers) if POINTS[point].layered else (None,)
    if layer not in layers:
        there = f"0 to {len(layers) - 1}" if POINTS[point].layered else "none at all"
        raise LabError(f"{point} has no layer {layer}; its layers are {there}")
