"""A learner's function in the place of a part: it gets copies, and what it returns is checked.

Copies, because a function that writes into its arguments would change the residual stream, or the
weights that other labs share.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from operator import index
from typing import Any

import torch
from torch import Tensor

from oss_lab.course.parts import PARTS, IdsSpec, Part, Spec
from oss_lab.errors import LabError, explain_unknown, shorten
from oss_lab.harmony.notices import warn
from oss_lab.model.parts import Parts

SLOW = 10.0  # seconds of a reply from which its slowest part is named


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
        except Exception as error:
            reason = shorten(f"{type(error).__name__}: {error}", 200)
            raise LabError(
                f"the part {name} raised {reason}; its signature is {name}{self.part.signature}"
            ) from error
        finally:
            self.seconds += time.perf_counter() - began
        specs = self.part.expect(*given)
        if len(specs) == 1:
            return check_result(name, returned, specs[0], given)
        if not isinstance(returned, tuple) or len(returned) != len(specs):
            raise LabError(
                f"the part {name} returned {describe(returned)}; expected {len(specs)} tensors, as"
                f" in {name}{self.part.signature}"
            )
        pairs = zip(returned, specs, strict=True)
        return tuple(
            check_result(name, each, spec, given, f"result {n} ")
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
        found[name] = (LearnerRouter if name == "router" else LearnerPart)(part, function)
    return found


def build_parts(replaced: Mapping[str, LearnerPart]) -> Parts:
    """The functions of a model with these parts; `sample` belongs to the lab."""
    found: dict[str, Any] = {}
    for name, part in replaced.items():
        if isinstance(part, LearnerRouter):
            found |= {"choose_experts": part.choose, "weigh_experts": part.weigh}
        elif name != "sample":
            found[name] = part
    return Parts(**found)


def check_result(name: str, value: Any, spec: Spec, given: tuple[Any, ...], which: str = "") -> Any:
    """The value, if the model can use it.

    Raises LabError if it differs from `spec`, contains NaN, or lost the arguments' gradient.
    """
    if isinstance(spec, IdsSpec):
        return check_ids(name, value, spec)
    expected = f"expected {describe_tensor(spec.shape, spec.dtype, spec.device)}"
    found = isinstance(value, Tensor) and (tuple(value.shape), value.dtype, value.device)
    if found != (spec.shape, spec.dtype, spec.device):
        raise LabError(f"the part {name} returned {which}{describe(value)}; {expected}")
    if spec.count is not None:
        least, most = (int(each) for each in value.aminmax())
        if least < 0 or most >= spec.count:
            wrong = least if least < 0 else most
            raise LabError(
                f"the part {name} returned {which}with index {wrong}; expected 0 to"
                f" {spec.count - 1}"
            )
    tensors = [each for each in given if isinstance(each, Tensor) and each.is_floating_point()]
    if value.isnan().any() and not any(each.isnan().any() for each in tensors):
        raise LabError(
            f"the part {name} returned {which}{describe(value)} with {int(value.isnan().sum())} NaN"
            " from arguments without NaN; expected numbers"
        )
    is_followed = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    if is_followed and spec.dtype.is_floating_point and not value.requires_grad:
        raise LabError(
            f"the part {name} returned {which}a tensor without gradient; compute it with torch"
            " operations, or use a lab without this part"
        )
    return value


def check_ids(name: str, value: Any, spec: IdsSpec) -> list[int]:
    """The token ids that a sampler chose."""
    expected = f"expected a list of {spec.length} token ids from 0 to {spec.count - 1}"
    if not isinstance(value, list | tuple) or len(value) != spec.length:
        raise LabError(f"the part {name} returned {describe(value)}; {expected}")
    if wrong := [each for each in value if not is_id(each, spec.count)]:
        raise LabError(f"the part {name} returned the id {wrong[0]!r}; {expected}")
    return [index(each) for each in value]


def is_id(value: Any, count: int) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= index(value) < count
    except TypeError:
        return False


def describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return describe_tensor(tuple(value.shape), value.dtype, value.device)
    return f"{type(value).__name__} {shorten(repr(value), 40)}"


def describe_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    return f"a tensor {list(shape)} {str(dtype).removeprefix('torch.')} on {device}"


class Watch:
    """Measures the parts while replies are generated, to name a slow one."""

    def __init__(self, parts: Mapping[str, LearnerPart]) -> None:
        self.parts = tuple(parts.values())

    def start(self) -> None:
        self.began = time.perf_counter()
        self.before = [part.seconds for part in self.parts]

    def warn_if_slow(self) -> None:
        """Warn about the slowest part, if generation has taken longer than `SLOW` seconds."""
        total = time.perf_counter() - self.began
        if total <= SLOW or not self.parts:
            return
        spent = [
            (part.seconds - before, part.part.name)
            for part, before in zip(self.parts, self.before, strict=True)
        ]
        seconds, name = max(spent)
        share = f"{seconds / total:.0%} of it in the part {name}"
        warn([f"generation took {total:.0f} s, {share}"], UserWarning)
