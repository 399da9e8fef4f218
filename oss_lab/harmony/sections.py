"""The text of system and developer messages: sections separated by a blank line.

Wording and order are those of openai-harmony 0.0.8. `# Response Formats`, the last section of a
developer message, exists only in OpenAI's guide, not in the library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import (
    ChannelConfig,
    Content,
    DeveloperContent,
    Message,
    ResponseFormat,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespace,
)
from oss_lab.harmony.schema import to_typescript


def has_function_tools(messages: Iterable[Message]) -> bool:
    """Whether any developer content has tools under the key `functions`.

    If so, the system message instructs the model to call them on the commentary channel.
    """
    return any(
        isinstance(part, DeveloperContent)
        and bool(part.tools and "functions" in part.tools and part.tools["functions"].tools)
        for message in messages
        for part in message.content
    )


def content_text(part: Content, role: Role, function_tools: bool) -> str:
    """The text of one content in a message of `role`.

    Raises:
        HarmonyError: system content outside a system message, or developer content outside a
            developer message.
    """
    if isinstance(part, TextContent):
        return part.text
    if isinstance(part, SystemContent):
        if role != "system":
            raise HarmonyError(
                f"SystemContent may only appear in system messages, found in {role.capitalize()}"
            )
        return system_text(part, function_tools)
    if role != "developer":
        raise HarmonyError(
            f"DeveloperContent may only appear in developer messages, found in {role.capitalize()}"
        )
    return developer_text(part)


def system_text(content: SystemContent, function_tools: bool = False) -> str:
    """Identity and dates, effort, tools, channels."""
    identity = [] if content.model_identity is None else [content.model_identity]
    if content.knowledge_cutoff is not None:
        identity.append(f"Knowledge cutoff: {content.knowledge_cutoff}")
    if content.conversation_start_date is not None:
        identity.append(f"Current date: {content.conversation_start_date}")
    sections = ["\n".join(identity)] if identity else []  # an empty identity is still a section
    if content.reasoning_effort is not None:
        sections.append(f"Reasoning: {content.reasoning_effort}")
    if content.tools:
        sections.append(tools_text(content.tools))
    if content.channel_config is not None and content.channel_config.valid_channels:
        sections.append(_channels_text(content.channel_config, function_tools))
    return "\n\n".join(sections)


def _channels_text(config: ChannelConfig, function_tools: bool) -> str:
    text = f"# Valid channels: {', '.join(config.valid_channels)}."
    if config.channel_required:
        text += " Channel must be included for every message."
    if function_tools:
        text += "\nCalls to these tools must go to the commentary channel: 'functions'."
    return text


def developer_text(content: DeveloperContent) -> str:
    """Instructions, tools, response formats."""
    sections = []
    if content.instructions is not None:  # an empty string still gets its heading
        sections += ["# Instructions", content.instructions]
    if content.tools:
        sections.append(tools_text(content.tools))
    if content.response_formats:
        sections.append(response_formats_text(content.response_formats))
    return "\n\n".join(sections)


def tools_text(tools: Mapping[str, ToolNamespace]) -> str:
    """`# Tools`, then one block per namespace, sorted by key (the heading shows the name)."""
    blocks = [_namespace_text(tools[key]) for key in sorted(tools, key=_code_points)]
    return "\n\n".join(["# Tools", *blocks])


def _code_points(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")  # the order in which Rust compares strings


def _namespace_text(namespace: ToolNamespace) -> str:
    name, tools = namespace.name, namespace.tools
    lines = [f"## {name}\n"]
    comment = "// " if tools else ""  # `python` has no functions, so its text gets no slashes
    lines += [f"{comment}{line}" for line in _lines(namespace.description or "")]
    if tools:
        lines.append(f"namespace {name} {{\n")
        for tool in tools:
            lines += [f"// {line}" for line in _lines(tool.description)]
            lines.append(f"type {tool.name} = {_signature(tool)} => any;\n")
        lines.append(f"}} // namespace {name}")
    return "\n".join(lines)


def _signature(tool: ToolDescription) -> str:
    try:
        return "()" if tool.parameters is None else f"(_: {to_typescript(tool.parameters)})"
    except RecursionError:
        raise HarmonyError(f"the schema of tool {tool.name!r} is nested too deeply") from None


def _lines(text: str) -> list[str]:
    """Split at newlines only; drop one carriage return per line and an empty last line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if text.endswith("\n") or not text:
        lines.pop()
    return lines


def response_formats_text(formats: Sequence[ResponseFormat]) -> str:
    """The section that requests structured output, with each schema as compact JSON."""
    blocks = ["# Response Formats"]
    for item in formats:
        comment = "".join(f"// {line}\n" for line in _lines(item.description or ""))
        schema = _json(item)
        blocks += [f"## {item.name}", comment + schema]
    return "\n\n".join(blocks)


def _json(item: ResponseFormat) -> str:
    try:
        return json.dumps(item.schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise HarmonyError(
            f"the schema of response format {item.name!r} has NaN or Infinity, which JSON cannot"
            " represent; remove it"
        ) from None
    except RecursionError:
        raise HarmonyError(
            f"the schema of response format {item.name!r} is nested too deeply"
        ) from None
