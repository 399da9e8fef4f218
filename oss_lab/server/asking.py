"""What both APIs ask for in the same way: effort, tools, sampling, and fields without a use here.

`IGNORED` and `REFUSED` list every field of OpenAI's APIs that this server knows and does not use. A
field without an effect on the reply is ignored, and named in a response header. A field that would
change the reply is refused. Any other field is unknown, and refused as OpenAI refuses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from oss_lab.harmony.messages import Effort
from oss_lab.server.errors import ApiError

AskedEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: dict[str, Effort] = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
IGNORED = frozenset({
    "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "verbosity", "moderation", "access_programs",
})  # fmt: skip
REFUSED = frozenset({
    "audio", "modalities", "prediction", "logit_bias", "web_search_options", "functions",
    "function_call", "frequency_penalty", "presence_penalty", "background", "background_options",
    "context_management", "conversation", "prompt", "image", "max_tool_calls",
})  # fmt: skip
EMPTY = (None, 0, False, [], {}, ["text"])  # values of refused fields that change nothing

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Objects = list[dict[str, Any]]


class Body(BaseModel):
    """A request of either API. Fields that are known but not used are extra fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Objects | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    def check_others(self) -> list[str]:
        """A note for each ignored field that has a value.

        Raises:
            ApiError: a field is unknown, or would change the reply and is not supported.
        """
        notes = []
        for name, value in (self.model_extra or {}).items():
            if name in IGNORED:
                notes += [] if value is None else [f"{name} is ignored"]
            elif name not in REFUSED:
                raise ApiError(
                    400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name
                )
            elif value not in EMPTY:
                raise ApiError(
                    400,
                    f"{name} is not supported by this server; leave it out",
                    code="unsupported_parameter",
                    param=name,
                )
        return notes

    def sampling(self) -> dict[str, Any]:
        """The keywords of sampling that have a value."""
        given = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in given.items() if value is not None}


def read_effort(asked: str | None, notes: list[str]) -> Effort | None:
    """The effort of gpt-oss for one of the API's; a note if it is another one.

    Raises:
        ApiError: the API has no such effort.
    """
    if asked is None:
        return None
    if asked not in EFFORTS:
        raise ApiError(
            400,
            f"the reasoning effort is {asked!r}; use one of {', '.join(get_args(AskedEffort))}",
            code="invalid_value",
            param="reasoning",
        )
    if EFFORTS[asked] != asked:
        notes.append(f"effort {asked} was mapped to {EFFORTS[asked]}")
    return EFFORTS[asked]


def limit_tokens(asked: int | None, most: int, notes: list[str]) -> int:
    """The number of tokens to generate at most."""
    if asked is not None and asked > most:
        notes.append(f"at most {most} tokens are generated, not {asked}")
    return most if asked is None else min(asked, most)


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
