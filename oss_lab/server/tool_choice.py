"""The tools of a request after its tool choice, and a tool as Harmony can show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oss_lab.server.errors import ApiError
from oss_lab.server.request import Objects


@dataclass
class ToolPlan:
    """The tools that the model sees, and whether it must call one.

    Attributes:
        required: the functions of which one must be called; empty if none must.
    """

    tools: Objects = field(default_factory=list)
    required: Sequence[str] = ()


def plan_tools(
    tools: Objects | None, choice: str | Mapping[str, Any] | None, notes: list[str]
) -> ToolPlan:
    """The tools of a request after its tool choice.

    Raises:
        ApiError: the choice is not one of the API's, or names a tool that is not in the list.
    """
    given = [clean_tool(tool, notes) for tool in tools or ()]
    names = [name_tool(tool) for tool in given]
    mode, chosen = read_choice(choice)
    if wrong := [name for name in chosen if name not in names]:
        raise ApiError(
            400,
            f"tool_choice names {wrong[0]!r}, which is not in tools",
            code="invalid_value",
            param="tool_choice",
        )
    if mode == "none":
        return ToolPlan()
    if chosen:
        given = [tool for tool, name in zip(given, names, strict=True) if name in chosen]
    if mode == "auto":
        return ToolPlan(given)
    if not given:
        raise ApiError(
            400,
            "tool_choice requires a call, but there are no tools",
            code="invalid_value",
            param="tool_choice",
        )
    return ToolPlan(given, [name_tool(tool) or "" for tool in given])


def read_choice(choice: str | Mapping[str, Any] | None) -> tuple[str, list[str]]:
    """The mode (none, auto or required), and the functions it is restricted to.

    Raises:
        ApiError: it is not one of the API's choices.
    """
    if choice is None or choice in ("auto", "none", "required"):
        return str(choice or "auto"), []
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        if kind == "function" and (name := name_tool(choice)):
            return "required", [name]
        if kind == "allowed_tools":
            inner = choice.get("allowed_tools", choice)
            listed = inner.get("tools") if isinstance(inner, Mapping) else None
            names = [name_tool(each) for each in listed] if isinstance(listed, list) else []
            if names and all(names) and inner.get("mode", "auto") in ("auto", "required"):
                return str(inner.get("mode", "auto")), [name for name in names if name]
    raise ApiError(
        400,
        "tool_choice must be none, auto, required, a function or allowed_tools",
        code="invalid_value",
        param="tool_choice",
    )


def name_tool(tool: Any) -> str | None:
    """The name of a function in the form of either API; None if it has none."""
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function", tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def clean_tool(tool: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The tool without `strict`, which has no effect, and without titles that repeat a name.

    Pydantic adds such titles to every schema. Harmony would show each as a comment, which the
    models did not see in training.
    """
    inner = tool.get("function")
    holder = inner if isinstance(inner, dict) else tool
    plain = dict(holder)
    if plain.pop("strict", None):
        notes.append(f"strict of tool {name_tool(tool)} has no effect")
    if "parameters" in plain:
        plain["parameters"] = without_titles(plain["parameters"])
    return {**tool, "function": plain} if holder is inner else plain


def without_titles(schema: Any, name: str = "") -> Any:
    """The schema without titles that repeat the name of a property.

    >>> without_titles({"properties": {"a_b": {"title": "A B", "type": "string"}}})
    {'properties': {'a_b': {'type': 'string'}}}
    """
    if isinstance(schema, list):
        return [without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "properties"}
    if kept.get("title") == name.replace("_", " ").title():
        del kept["title"]
    kept = {key: without_titles(value) for key, value in kept.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        properties = {key: without_titles(value, key) for key, value in properties.items()}
    return kept if properties is None else {**kept, "properties": properties}
