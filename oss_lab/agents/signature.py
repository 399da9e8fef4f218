"""The arguments of a Python function: their JSON schema, and their check by pydantic.

Simple hints are described as in `oss_lab.harmony.tool_forms`: a function looks the same to the
model here and in `lab.chat(tools=...)`. Everything else that pydantic knows (models, enums,
dataclasses, dates, constrained numbers) is described by pydantic's schema, without references,
which Harmony's text cannot show.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from oss_lab.agents.arguments import Arguments, CallError
from oss_lab.agents.json_schema import join_problems, show
from oss_lab.errors import LabError, explain_error
from oss_lab.harmony.messages import ToolDescription
from oss_lab.harmony.tool_forms import check_named, describe_tools, read_docstring

# pydantic refuses some names, such as `_a` and `model_x`, so none is used as it is.
FIELD = "field_"


class QuietSchema(GenerateJsonSchema):
    """A default that JSON cannot hold is left out without a warning."""

    ignored_warning_kinds = frozenset({"skipped-choice", "non-serializable-default"})  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True)
class ArgumentsModel:
    """A pydantic model of the arguments; its fields have the parameters' names as aliases."""

    model: type[BaseModel]

    def check(self, arguments: Arguments) -> tuple[Arguments, tuple[str, ...]]:
        """The arguments as the types of the hints, and a note for each that was converted.

        An argument that only pydantic's lax mode accepts, such as "3" for an integer, is converted.

        Raises:
            CallError: an argument is missing, unknown or of another type.
        """
        notes: list[str] = []
        try:
            checked = self._validate(arguments, strict=True)
        except ValidationError as first:
            try:
                checked = self._validate(arguments, strict=False)
            except ValidationError as error:
                raise CallError(join_problems(list_problems(error))) from None
            notes = [f"{problem}; it was converted" for problem in list_problems(first)]
        fields = self.model.model_fields
        names = {name: str(field.alias) for name, field in fields.items()}
        given = checked.model_fields_set
        return {names[name]: getattr(checked, name) for name in names if name in given}, tuple(
            notes
        )

    def _validate(self, arguments: Arguments, *, strict: bool) -> BaseModel:
        """In JSON's mode, where a date is written as text and a tuple as a list."""
        return self.model.model_validate_json(json.dumps(arguments), strict=strict)


def list_problems(error: ValidationError) -> list[str]:
    """One phrase per problem that pydantic found."""
    problems: list[str] = []
    for each in error.errors(include_url=False):
        where = ".".join(map(str, each["loc"])) or "the value"
        if each["type"] == "missing":
            problems.append(f"{where} is missing")
        elif each["type"] == "extra_forbidden":
            problems.append(f"there is no field {show(where)}")
        else:
            problems.append(f"{where} is {show(each['input'])}: {each['msg']}")
    return problems


def build_arguments_model(function: Callable[..., object]) -> ArgumentsModel:
    """The model of a function's parameters.

    Raises:
        LabError: a parameter has no type hint, or one that pydantic cannot check.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # a hint may be any expression
        raise LabError(
            f"the parameters of tool {name} cannot be read ({explain_error(error, 120)}); write a"
            " function with `def` and type hints"
        ) from None
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(signature.parameters.values()):
        where = f"parameter {parameter.name} of tool {name}"
        check_named(parameter, where)
        if parameter.annotation is inspect.Parameter.empty:
            raise LabError(f"{where} has no type hint; add one, such as `{parameter.name}: str`")
        fields[f"{FIELD}{index}"] = (parameter.annotation, _build_field(parameter))
    try:
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        return ArgumentsModel(create_model(name, __config__=config, **fields))
    except (PydanticUserError, TypeError, NameError) as error:
        raise LabError(
            f"a type hint of tool {name} cannot be checked ({explain_error(error, 160)}); use"
            " types that pydantic knows"
        ) from None


def _build_field(parameter: inspect.Parameter) -> Any:
    if parameter.default is inspect.Parameter.empty:
        return Field(alias=parameter.name)
    return Field(parameter.default, alias=parameter.name)


def describe_function(function: Callable[..., object], model: ArgumentsModel) -> ToolDescription:
    """How the model sees a function."""
    try:
        return describe_tools([function])[0]
    except LabError:
        if not _has_other_hints(function):
            raise
    whole = model.model.model_json_schema(by_alias=True, schema_generator=QuietSchema)
    schema = inline_references(whole)
    paragraph, texts = read_docstring(inspect.getdoc(function) or "")
    for name, inside in schema.get("properties", {}).items():
        if texts.get(name):
            inside["description"] = texts[name]
    schema.pop("title", None)
    schema.pop("additionalProperties", None)
    return ToolDescription(getattr(function, "__name__", "tool"), paragraph, schema)


def _has_other_hints(function: Callable[..., object]) -> bool:
    """Whether the function itself can be a tool, which leaves only its hints to pydantic."""

    def stand_in() -> None: ...

    name = getattr(function, "__name__", None)
    if isinstance(function, type) or not isinstance(name, str) or not name.isidentifier():
        return False
    stand_in.__name__ = name
    try:
        describe_tools([stand_in])
    except LabError:
        return False
    return True


def inline_references(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without `$ref`, `anyOf` with null, and the titles that pydantic makes up.

    A type that contains itself stays `{"type": "object"}` from its second level on.
    """
    definitions = schema.get("$defs", {})

    def inline(node: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [inline(each, inside) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/$defs/")
            others = {key: value for key, value in node.items() if key != "$ref"}
            if name in inside:
                return {"type": "object", **others}
            return inline({**definitions[name], **others}, (*inside, name))
        found: dict[str, Any] = {}
        for key, value in node.items():
            if key == "properties":
                found[key] = {name: inline(each, inside) for name, each in value.items()}
            elif key not in ("$defs", "title"):
                found[key] = inline(value, inside)
        return _as_nullable(found)

    return inline(dict(schema), ())


def _as_nullable(node: dict[str, Any]) -> dict[str, Any]:
    """`anyOf` of one type and null as that type, nullable."""
    choices = node.get("anyOf", [])
    others = [each for each in choices if each != {"type": "null"}]
    if len(others) != 1 or len(others) == len(choices):
        return node
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**others[0], **rest, "nullable": True}
