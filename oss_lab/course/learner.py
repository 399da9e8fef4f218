"""A learner's function in the place of a part: it gets copies, and what it returns is checked.

Copies, because a function that writes into its arguments would change the residual stream, or the
weights that other labs share.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from oss_lab.course.parts import OUTSIDE_THE_MODEL, PARTS, Part
from oss_lab.course.specs import describe
from oss_lab.errors import LabError, explain_error, explain_unknown
from oss_lab.harmony.notices import warn
from oss_lab.model.parts import Parts


class LearnerPart:
    """A function that replaces a part.

    Attributes:
        seconds: the time spent in it so far, in all threads.
    """

    def __init__(self, part: Part, function: Callable[..., Any]) -> None:
        self.part, self.function = part, function
        self.seconds = 0.0

    def __call__(self, *given: Any) -> Any:
        """Call the function with copies of the tensors, and check what it returns.

        Raises LabError if the function raises, or returns something that the model cannot use.
        """
        copies = [each.clone() if isinstance(each, Tensor) else each for each in given]
        name, began = self.part.name, time.perf_counter()
        try:
            returned = self.function(*copies)
        except (Exception, SystemExit) as error:
            raise LabError(
                f"the part {name} raised {explain_error(error, 200)}; its signature is"
                f" {name}{self.part.signature}"
            ) from error
        finally:
            self.seconds += time.perf_counter() - began
        specs = self.part.expect(*given)
        if len(specs) == 1:
            return specs[0].check(f"the part {name} returned ", returned, given)
        if not isinstance(returned, tuple) or len(returned) != len(specs):
            raise LabError(
                f"the part {name} returned {describe(returned)}; expected {len(specs)} tensors, as"
                f" in {name}{self.part.signature}"
            )
        pairs = zip(returned, specs, strict=True)
        return tuple(
            spec.check(f"the part {name} returned result {n} ", each, given)
            for n, (each, spec) in enumerate(pairs)
        )


class LearnerRouter(LearnerPart):
    """The model asks for experts and weights separately, so a hook can change the experts."""

    def choose(self, router_logits: Tensor, slots: int) -> Tensor:
        return self(router_logits, slots)[0]

    def weigh(self, router_logits: Tensor, ids: Tensor) -> Tensor:
        own, weights = self(router_logits, ids.shape[-1])
        if not torch.equal(own, ids):
            raise LabError(
                "the part router weighs only the experts that it chose, and an intervention changed"
                " them (or the part is random); use a lab without this part"
            )
        return weights


class LearnerScores(LearnerPart):
    """Rows that share their keys are one row in the model; the function gets one for each."""

    def __call__(self, *given: Any) -> Any:
        q, k = given
        return super().__call__(q, k.expand(len(q), -1, -1, -1))


class LearnerParser(LearnerPart):
    """A reply that the function cannot parse is kept: it has a warning and no messages."""

    def __call__(self, *given: Any) -> Any:
        try:
            return super().__call__(*given)
        except LabError as error:
            lost = "the reply has no messages, and `ids` has its tokens"
            warn([f"{error}; {lost}"], UserWarning)
            return []


SPECIAL = {
    "attention_scores": LearnerScores,
    "parse": LearnerParser,
    "router": LearnerRouter,
}


def check_functions(functions: Mapping[str, Any]) -> dict[str, LearnerPart]:
    """The functions as parts, by name. Raises LabError if a name or the arguments are wrong."""
    found: dict[str, LearnerPart] = {}
    for name, function in functions.items():
        if name not in PARTS:
            raise LabError(explain_unknown("part", name, PARTS))
        part = PARTS[name]
        expected = f"a function {name}{part.signature}"
        if not callable(function):
            raise LabError(f"the part {name} must be {expected}, got {describe(function)}")
        arguments = inspect.signature(part.function).parameters
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            raise LabError(
                f"the part {name} must accept {len(arguments)} arguments: expected {expected}"
            ) from None
        except ValueError:  # functions written in C may have no signature
            pass
        found[name] = SPECIAL.get(name, LearnerPart)(part, function)
    return found


def build_parts(replaced: Mapping[str, LearnerPart]) -> Parts:
    """The functions of a model with these parts."""
    found: dict[str, Any] = {}
    for name, part in replaced.items():
        if isinstance(part, LearnerRouter):
            found |= {"choose_experts": part.choose, "weigh_experts": part.weigh}
        elif name not in OUTSIDE_THE_MODEL:
            found[name] = part
    return Parts(**found)
