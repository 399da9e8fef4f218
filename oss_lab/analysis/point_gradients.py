"""How a prediction changes with every value at a point: gradients, labeled like a trace.

One forward and one backward pass of the reference model, under the active interventions. A gradient
is the total derivative: it includes the effects of a value in all later layers. The choice of
experts is not differentiable and stays fixed; `gradients.py` integrates along a line instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.forwards import run_forward
from oss_lab.analysis.gradients import Target
from oss_lab.analysis.tracing import build_origin, label_trace
from oss_lab.engine.choice import EngineChoice
from oss_lab.engine.request import check_tokens
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments, check_fields
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Integers, Selection, is_integer
from oss_lab.model.hook import check_parameters
from oss_lab.record.trace import Trace

if TYPE_CHECKING:
    import xarray

    from oss_lab.lab import Lab

Output = Callable[[Float[Tensor, "seq vocab"]], Float[Tensor, ""]]
Goal = int | tuple[int, int] | Target | Output
"""A token's logit, the difference of two, a Target, or a function of the logits."""


@dataclass(frozen=True)
class Gradients:
    """The derivative of `output` with respect to every value at some points.

    Attributes:
        trace: the derivatives, labeled; `gradients[point]` and `gradients[point, layer]` read it.
    """

    output: float
    trace: Trace

    def __getitem__(self, key: str | tuple[str, int | None]) -> "xarray.DataArray | Tensor":
        return self.trace[key]


@check_arguments
def gradients(
    lab: "Lab",
    tokens: Sequence[int],
    target: Goal,
    points: Sequence[str] = ("embed",),
    layers: Integers | None = None,
) -> Gradients:
    """d target / d point for the tokens of a sequence.

    Args:
        target: a token id (its logit after the last token), a pair of ids (the difference of
            their logits), a Target, or a function of the float32 logits [seq vocab] that returns
            one number.

    Raises:
        LabError: a point has no gradient; a token or layer does not exist; the function does not
            return one number that depends on the logits; or the model was loaded with other
            `kernels` than "auto" and "reference".
    """
    selection = Selection.of(points, layers)
    selection.check(lab.config, len(tokens))
    for name in selection.points:
        if reason := reason_against_gradient(name):
            raise LabError(f"there is no gradient at {name}: {reason}")
    if lab.engines.kernels is not None and not lab.engines.is_auto:
        raise LabError(
            "the kernels have no backward pass, so there are no gradients: load the model with"
            ' kernels="auto" or kernels="reference"'
        )
    lab.model.require_whole("a gradient")
    output_of = output_function(lab, tokens, target)
    graph = GraphValues(selection)
    engine = lab.engines.reference
    with torch.inference_mode(False), torch.enable_grad():
        row = torch.tensor([list(tokens)], device=lab.model.device)
        logits = run_forward(lab, row, also=graph, engine=engine)[0].float()
        output = output_of(logits)
        if not isinstance(output, Tensor) or output.numel() != 1 or not output.requires_grad:
            raise LabError("the target must be a function that returns one number of the logits")
        if not output.isfinite().all():
            raise LabError(
                f"the target is {output.item()}; the weights or an intervention caused it"
            )
        found = torch.autograd.grad(
            output.sum(), list(graph.values.values()), allow_unused=True, materialize_grads=True
        )
    tensors = {
        key: to_trace_axes(key[0], gradient)
        for key, gradient in zip(graph.values, found, strict=True)
    }
    interventions = tuple(map(str, lab.interventions))
    reason = None if lab.engines.kernels is None else "the kernels have no backward pass"
    origin = build_origin(EngineChoice(engine, reason), lab.digest, interventions, None)
    trace = label_trace(tensors, selection, tokens, lab.tokenizer, origin, lab.config)
    return Gradients(output.item(), trace)


def reason_against_gradient(name: str) -> str | None:
    """Why a point has no gradient; None if it has one."""
    point = POINTS[name]
    if point.kind in ("expert", "token"):
        return "its values are expert or token numbers"
    return point.read_only_reason


def output_function(lab: "Lab", tokens: Sequence[int], target: Goal) -> Output:
    """The target as a function of the logits.

    Raises:
        LabError: the target has another type, or names a token or position that does not exist.
    """
    if callable(target):
        check_parameters("target", target, "logits")
        return target
    if isinstance(target, Target):
        check_fields(target)
        check_index("position", target.position, len(tokens))
        ids = [target.token, *([] if target.against is None else [target.against])]
        check_tokens(ids, lab.config, name="the target")
        return lambda logits: target.value(logits[target.position])
    several = target if isinstance(target, tuple | list) else (target,)
    if len(several) not in (1, 2) or not all(map(is_integer, several)):
        raise LabError(
            "target: expected a token id, a pair of ids or a function of the logits, got"
            f" {target!r}"
        )
    check_tokens(several, lab.config, name="the target")
    token, *against = several
    return lambda logits: logits[-1, token] - (logits[-1, against[0]] if against else 0)


class GraphValues:
    """Hooks that keep selected values in the autograd graph, which begins at `embed`."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.values: dict[tuple[str, int | None], Tensor] = {}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point == "embed":
            x = x.detach().clone().requires_grad_()
        chosen = self.selection.layers
        if point in self.selection.points and (layer is None or chosen is None or layer in chosen):
            if not x.requires_grad:  # a sink depends on the weights only
                x = x.detach().clone().requires_grad_()
            self.values[point, layer] = x
        return x


def to_trace_axes(point: str, gradient: Tensor) -> Tensor:
    """The gradient [1 ...] with the axes of a trace, in float32 on the CPU."""
    x = gradient[0].detach().float().cpu()
    return x.transpose(0, 1).contiguous() if POINTS[point].has_head_axis else x
