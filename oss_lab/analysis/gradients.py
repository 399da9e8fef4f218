"""Which tokens a prediction depends on: gradients at a point, and integrated gradients.

A prediction is differentiated with respect to the values at a point of the forward pass. The
gradient gives the effect of a small change. Gradient times input is a first estimate of each
token's contribution.

Integrated gradients (Sundararajan et al., arXiv:1703.01365) follow the straight line from a
baseline to the input. For a continuous model they add up to the difference between the two outputs.
But the output jumps where the router chooses another expert, and no gradient includes that jump. So
the result also has the gap, and how often the router's choice changed. With `experts="held"` the
choice cannot change, and the gap is the error of the finite steps. Where the model is certain, a
log-probability is flat and its gradient almost zero: use a difference of logits, or integrated
gradients.

Weights stay packed. But the backward pass needs the dequantized matrix of every expert used after
the point, whatever the budget of the expert cache. So a point in a late layer needs less memory.
The whole sequence is read in one pass, so memory also grows with its length. No kernel has a
backward pass: the reference model differentiates the same weights, in the model's dtype.
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
from oss_lab.hooks.arguments import check_arguments, check_fields, describe
from oss_lab.hooks.points import AFTER_THE_LAYERS, POINTS
from oss_lab.progress import track_progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

STEPS = 128  # along a line; the gap shows whether they are enough
GRADIENT_POINTS = tuple(
    point.name
    for point in POINTS.values()
    if point.axes == ("seq", "hidden") and point.name not in AFTER_THE_LAYERS
)
"""The points that a gradient can be taken at."""


@dataclass(frozen=True)
class Target:
    """What to differentiate: a number of the prediction after `position`.

    Attributes:
        token: its logit or log-probability (in nats) is differentiated.
        against: another token, whose logit or log-probability is subtracted.
    """

    position: int
    token: int
    against: int | None = None
    of: Literal["logprob", "logit"] = "logprob"

    def value(self, logits: Float[Tensor, "vocab"]) -> Float[Tensor, ""]:
        """The number that is differentiated, in float32."""
        wide = logits.float()
        scores = wide.log_softmax(-1) if self.of == "logprob" else wide
        return scores[self.token] - (0 if self.against is None else scores[self.against])


@dataclass(frozen=True)
class Gradient:
    """The derivative of `output` with respect to the values at a point.

    Covers the tokens up to the target's position, in float32.

    Attributes:
        values: the values at the point.
    """

    output: float
    values: Float[Tensor, "seq hidden"]
    gradient: Float[Tensor, "seq hidden"]

    @property
    def times_input(self) -> Float[Tensor, "seq"]:
        """Gradient times values, one number per token."""
        return (self.gradient * self.values).sum(-1)


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients, one number per token.

    Attributes:
        output, baseline_output: the target's value with the input, and with the baseline.
        turns: how often a token's set of experts changed from one step to the next, in all layers.
    """

    output: float
    baseline_output: float
    baseline: Float[Tensor, "seq hidden"]
    attributions: Float[Tensor, "seq"]
    steps: int
    turns: int

    @property
    def gap(self) -> float:
        """The sum of the attributions minus the difference that it should equal.

        It has two causes: the finite steps, and the jumps where the router's choice changed.
        """
        return float(self.attributions.sum()) - (self.output - self.baseline_output)


@check_arguments
def gradient(
    lab: "Lab", of: "Prompt", target: Target, point: str = "embed", layer: int | None = None
) -> Gradient:
    """The gradient of a prediction with respect to a point, under the active interventions.

    Interventions at the point itself are part of its values. Each token's set of experts is held
    fixed.

    Raises:
        LabError: the position, token, point or layer does not exist.
    """
    tokens = lab.tokens_of(of)
    check_target(lab, tokens, target, point, layer)
    leaf = Leaf(point, layer)
    output = run_backward(lab, tokens, target, leaf)
    return Gradient(output, leaf.value, leaf.gradient)


@check_arguments
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
) -> IntegratedGradients:
    """Integrate gradients along the line from a baseline to the input, by the midpoint rule.

    Args:
        baseline: [hidden] for every token, or [seq hidden]. None: the mean of the embedding's rows
            at `embed`, elsewhere the mean of the point over these tokens. Zeros are a poor choice:
            RMSNorm rescales every vector, so the output changes almost only near zero.
        experts: "held" uses the input's sets of experts along the whole line, and for
            `baseline_output`.

    Raises:
        LabError: as in `gradient`, or the baseline has another shape.
    """
    if steps < 1:
        raise LabError(f"steps is {steps}; it must be 1 or more")
    tokens = lab.tokens_of(of)
    check_target(lab, tokens, target, point, layer)
    here = Leaf(point, layer)
    output = run_backward(lab, tokens, target, here)
    held = here.experts if experts == "held" else None
    start = build_baseline(lab, here.value, point, baseline)
    last = Leaf(point, layer, start, held)
    baseline_output = run_backward(lab, tokens, target, last)
    line, total, turns = here.value - start, torch.zeros_like(start, dtype=torch.float64), 0
    for step in track_progress(range(steps), "integrate"):
        leaf = Leaf(point, layer, start + (step + 0.5) / steps * line, held)
        run_backward(lab, tokens, target, leaf)
        total += leaf.gradient
        turns += leaf.count_changes_from(last)
        last = leaf
    turns += here.count_changes_from(last)
    attributions = (total / steps * line).sum(-1).float()
    return IntegratedGradients(output, baseline_output, start, attributions, steps, turns)


class Leaf:
    """Hooks that make one point a leaf of the autograd graph, and record the chosen experts.

    Args:
        replacement: values to use at the point [seq hidden]; None uses its own.
        held: experts to use in each layer [1 seq slot]; None uses those that the router chooses.
    """

    def __init__(
        self,
        point: str,
        layer: int | None,
        replacement: Tensor | None = None,
        held: Sequence[Tensor] | None = None,
    ) -> None:
        self.point, self.layer, self.replacement, self.held = point, layer, replacement, held
        self.experts: list[Int[Tensor, "1 seq slot"]] = []  # of each layer
        self.leaf: Float[Tensor, "1 seq hidden"]

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point == "moe.expert_ids":
            x = x if self.held is None else self.held[len(self.experts)]
            self.experts.append(x)
        if (point, layer) != (self.point, self.layer):
            return x
        value = x if self.replacement is None else self.replacement[None].to(x)
        self.leaf = value.detach().clone().requires_grad_()
        return self.leaf

    @property
    def value(self) -> Float[Tensor, "seq hidden"]:
        """The values at the point."""
        return self.leaf.detach()[0].float().cpu()

    @property
    def gradient(self) -> Float[Tensor, "seq hidden"]:
        assert self.leaf.grad is not None
        return self.leaf.grad[0].float().cpu()

    def count_changes_from(self, other: "Leaf") -> int:
        """How many tokens have another set of experts than in `other`, summed over layers."""
        pairs = zip(self.experts, other.experts, strict=True)
        return sum(
            int((mine.sort(-1).values != theirs.sort(-1).values).any(-1).sum())
            for mine, theirs in pairs
        )


def run_backward(lab: "Lab", tokens: Sequence[int], target: Target, leaf: Leaf) -> float:
    """Run one forward and one backward pass; returns the target's value."""
    lab.model.require_whole("a gradient")
    with torch.inference_mode(False), torch.enable_grad():
        row = torch.tensor([list(tokens[: target.position + 1])], device=lab.model.device)
        logits = run_forward(lab, row, last=1, also=leaf, engine=lab.engines.reference)
        output = target.value(logits[0, -1])
        output.backward()
    return output.item()


def build_baseline(
    lab: "Lab", values: Float[Tensor, "seq hidden"], point: str, baseline: Tensor | None
) -> Float[Tensor, "seq hidden"]:
    """The values at the start of the line.

    Raises:
        LabError: the baseline has another shape.
    """
    if baseline is None:
        rows = lab.model.embedding.weight.detach() if point == "embed" else values
        baseline = rows.float().mean(0).cpu()
    if not isinstance(baseline, Tensor):
        raise LabError(f"the baseline must be a tensor, got {describe(baseline)}")
    if baseline.shape not in (values.shape, values.shape[1:]):
        raise LabError(
            f"the baseline is {list(baseline.shape)}; it must be {list(values.shape[1:])} or"
            f" {list(values.shape)}"
        )
    return baseline.float().cpu().expand_as(values)


def check_target(
    lab: "Lab", tokens: Sequence[int], target: Target, point: str, layer: int | None
) -> None:
    """Raise LabError if the target cannot be differentiated at the point."""
    check_fields(target)
    check_index("position", target.position, len(tokens))
    pair = [target.token] if target.against is None else [target.token, target.against]
    check_tokens(pair, lab.config, name="the target")
    if point not in GRADIENT_POINTS:
        raise LabError(
            f"cannot take a gradient at {point!r}; use one of {', '.join(GRADIENT_POINTS)}"
        )
    layers = range(lab.config.num_hidden_layers) if POINTS[point].is_per_layer else (None,)
    if layer not in layers:
        allowed = f"0 to {len(layers) - 1}" if POINTS[point].is_per_layer else "None"
        raise LabError(f"the layer of {point} is {layer}; it must be {allowed}")
