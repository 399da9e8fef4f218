"""`Tool`: a function that a model may call, with the description that the model reads.

    def add(a: int, b: int) -> int:
        "Add two numbers."
        return a + b

    Tool.of(add)                        # described by its type hints; pydantic checks arguments
    Tool.of(add, schema)                # described by an OpenAI-style dictionary

A `Toolbox` is a namespace of tools that share state, such as the pages of a browser. Arguments are
always checked before the function is called.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from oss_lab.agents.arguments import CallError, read_arguments
from oss_lab.agents.json_schema import check_schema, find_problems, join_problems
from oss_lab.agents.signature import ArgumentsModel, build_arguments_model, describe_function
from oss_lab.errors import LabError
from oss_lab.harmony.messages import ToolDescription, ToolNamespace
from oss_lab.harmony.tool_forms import ToolForm, describe_tools

Notes = tuple[str, ...]


@dataclass(frozen=True)
class Noted:
    """What a function may return: its result, and notes for people that the model does not get."""

    value: object
    notes: Notes


@dataclass(frozen=True)
class Tool:
    """A function and how a model sees it.

    Attributes:
        description: its name, its purpose and the JSON schema of its arguments.
        function: called with the arguments as keywords, or with the text of the call.
        model: checks and converts the arguments; None: they are checked against the schema only.
        reads_text: the function takes the text of the call unchanged, as the python tool does.
    """

    description: ToolDescription
    function: Callable[..., object]
    model: ArgumentsModel | None = None
    reads_text: bool = False

    @classmethod
    def of(cls, function: Callable[..., object], form: ToolForm | None = None) -> "Tool":
        """A tool from a Python function, described by its hints or by `form`.

        Raises:
            LabError: the function cannot be described, or is asynchronous.
        """
        if not callable(function):
            raise LabError(f"expected a Python function, got {type(function).__name__}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            name = getattr(function, "__name__", "the tool")
            raise LabError(f"{name} is an async function; give an ordinary one")
        if form is None:
            model = build_arguments_model(function)
            return cls(describe_function(function, model), function, model)
        (description,) = describe_tools([form])
        if description.parameters is not None:
            check_schema(description.parameters, f"the parameters of {description.name}")
        return cls(description, function)

    @property
    def name(self) -> str:
        return self.description.name

    def call(self, text: str) -> tuple[object, Notes]:
        """Call the function with arguments that a model wrote.

        Returns:
            What the function returned, and a note for each correction of the arguments, with the
            notes of the function.

        Raises:
            CallError: the arguments cannot be read, or do not fit. What the function raises is not
                caught here.
        """
        if self.reads_text:
            return _separate_notes(self.function(text), ())
        arguments, notes = read_arguments(text)
        if self.model is not None:
            arguments, more = self.model.check(arguments)
            return _separate_notes(self.function(**arguments), (*notes, *more))
        schema = self.description.parameters or {}
        if problems := find_problems(arguments, {_find_closing(schema): False, **schema}):
            raise CallError(join_problems(problems))
        return _separate_notes(self.function(**arguments), notes)


def _find_closing(schema: Mapping[str, object]) -> str:
    """The keyword that refuses all other fields: fields may also be listed in another schema."""
    is_listed = schema.keys() & {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if"}
    return "unevaluatedProperties" if is_listed else "additionalProperties"


def _separate_notes(result: object, notes: Notes) -> tuple[object, Notes]:
    return (result.value, (*notes, *result.notes)) if isinstance(result, Noted) else (result, notes)


@runtime_checkable
class Toolbox(Protocol):
    """Tools of one namespace that share state, such as the pages of a browser."""

    @property
    def namespace(self) -> ToolNamespace:
        """What the system message says about them."""
        ...

    def open(self) -> AbstractContextManager[Mapping[str, Tool]]:
        """Fresh state, and the tools on it by full name, such as `browser.search`."""
        ...
