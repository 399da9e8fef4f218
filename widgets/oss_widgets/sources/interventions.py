"""Interventions as the views write them: `{"kind": "AblateExpert", "layer": 2, "expert": 7}`.

The kinds are the classes of `oss_lab.hooks.interventions` whose fields are plain data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, explain_unknown
from oss_lab.hooks import interventions
from oss_lab.hooks.arguments import describe
from oss_lab.hooks.interventions import Hook, Intervention

KINDS: dict[str, type[Intervention]] = {
    name: each
    for name in interventions.__all__
    if isinstance(each := getattr(interventions, name), type)
    and issubclass(each, Intervention)
    and each not in (Intervention, Hook)
}


def read_interventions(given: Any, config: ModelConfig) -> tuple[Intervention, ...]:
    """The interventions in plain data; None is none.

    Raises:
        LabError: a kind or field is unknown, or the model does not have that place.
    """
    if given is None:
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise LabError(f"interventions must be a list, got {describe(given)}")
    found = tuple(map(read_intervention, given))
    for each in found:
        each.check(config)
    return found


def read_intervention(given: Any) -> Intervention:
    """One intervention from its plain data."""
    if isinstance(given, Intervention):
        return given
    if not isinstance(given, Mapping):
        raise LabError(f"an intervention must be an object with a kind, got {describe(given)}")
    values = {str(name): value for name, value in given.items() if name != "kind"}
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise LabError(explain_unknown("intervention", str(kind), KINDS))
    return KINDS[kind](**values)


def write_intervention(intervention: Intervention) -> dict[str, Any]:
    """The plain data of an intervention; one that holds a function has only its text."""
    kind = type(intervention).__name__
    if kind not in KINDS:
        return {"kind": kind, "text": str(intervention)}
    values = {each.name: getattr(intervention, each.name) for each in fields(intervention)}
    return {"kind": kind} | {
        name: write_value(value) for name, value in values.items() if value is not None
    }


def write_value(value: Any) -> Any:
    """A field as JSON holds it; a tuple of one number is that number."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def to_python(intervention: Intervention) -> str:
    """A call that makes the intervention again.

    >>> to_python(read_intervention({"kind": "ScaleHead", "layer": 0, "head": [1, 2], "by": 0.5}))
    'ScaleHead(layer=0, head=[1, 2], by=0.5)'
    """
    data = write_intervention(intervention)
    parts = [f"{name}={format_python(value)}" for name, value in data.items() if name != "kind"]
    return f"{data['kind']}({', '.join(parts)})"


def format_python(value: Any) -> str:
    """A plain value as Python code."""
    return repr(json.loads(json.dumps(value))) if isinstance(value, list | dict) else repr(value)
