"""The parts of a conversation: messages with an author, contents and header fields.

Plain frozen values without rendering or JSON (see sections.py, render.py and wire.py). The fields
and defaults of `SystemContent` are those of openai-harmony 0.0.8. None means that a field is
absent; an empty string is present and is rendered, as in the library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from oss_lab.errors import HarmonyError

Role = Literal["system", "developer", "user", "assistant", "tool"]
Effort = Literal["low", "medium", "high"]

ROLES: tuple[Role, ...] = get_args(Role)
EFFORTS: tuple[Effort, ...] = get_args(Effort)
CHANNELS = ("analysis", "commentary", "final")
IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a message. A tool is identified by its name, e.g. `functions.get_weather`."""

    role: Role
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise HarmonyError(f"unknown role {self.role!r}; use one of {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True)
class TextContent:
    """Text, rendered unchanged; special tokens in it are not interpreted.

    Attributes:
        ids: the tokens that the model generated for it. Rendering reuses them if they decode to
            the text.
    """

    text: str
    ids: tuple[int, ...] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """The channels that the system message lists."""

    valid_channels: tuple[str, ...] = CHANNELS
    channel_required: bool = True


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """One function; `parameters` is a JSON schema, or None for a function without arguments."""

    name: str
    description: str = ""
    parameters: Any = None


@dataclass(frozen=True, slots=True)
class ToolNamespace:
    """Functions that are called as `name.function`."""

    name: str
    description: str | None = None
    tools: tuple[ToolDescription, ...] = ()


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A JSON schema that the final answer must follow (`# Response Formats`)."""

    name: str
    schema: Any
    description: str | None = None


@dataclass(frozen=True, slots=True)
class SystemContent:
    """Content of the system message. By default it has no date, as in the library."""

    model_identity: str | None = IDENTITY
    reasoning_effort: Effort | None = "medium"
    conversation_start_date: str | None = None
    knowledge_cutoff: str | None = "2024-06"
    channel_config: ChannelConfig | None = field(default_factory=ChannelConfig)
    tools: Mapping[str, ToolNamespace] | None = None

    def __post_init__(self) -> None:
        if self.reasoning_effort is not None and self.reasoning_effort not in EFFORTS:
            raise HarmonyError(
                f"reasoning_effort is {self.reasoning_effort!r}; use one of {', '.join(EFFORTS)}"
            )


@dataclass(frozen=True, slots=True)
class DeveloperContent:
    """Instructions (elsewhere called "system prompt"), function tools and response formats."""

    instructions: str | None = None
    tools: Mapping[str, ToolNamespace] | None = None
    response_formats: tuple[ResponseFormat, ...] = ()


Content = TextContent | SystemContent | DeveloperContent


def make_function_tools(tools: Sequence[ToolDescription]) -> dict[str, ToolNamespace]:
    """The `functions` namespace, ready for `DeveloperContent(tools=...)`."""
    return {"functions": ToolNamespace("functions", tools=tuple(tools))}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: author, contents, and the optional header fields."""

    author: Author
    content: tuple[Content, ...]
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None

    @classmethod
    def of(
        cls,
        role: Role,
        content: str | Content,
        *,
        name: str | None = None,
        channel: str | None = None,
        recipient: str | None = None,
        content_type: str | None = None,
    ) -> Message:
        """A message with a single content.

        >>> Message.of("assistant", "4", channel="final").text
        '4'
        """
        part = TextContent(content) if isinstance(content, str) else content
        return cls(Author(role, name), (part,), channel, recipient, content_type)

    @property
    def role(self) -> Role:
        return self.author.role

    @property
    def text(self) -> str:
        """The text contents, joined. System and developer contents are not included."""
        return "".join(part.text for part in self.content if isinstance(part, TextContent))


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order. Nothing is checked or reordered."""

    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, *messages: Message) -> Conversation:
        return cls(tuple(messages))

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


def with_effort(conversation: Conversation, effort: Effort) -> Conversation:
    """The same conversation with this effort in its system message.

    Raises:
        HarmonyError: the conversation has no system message.
    """
    parts = (part for message in conversation for part in message.content)
    if not any(isinstance(part, SystemContent) for part in parts):
        raise HarmonyError("the conversation has no system message to set the effort in; add one")

    def update(message: Message) -> Message:
        content = tuple(
            replace(part, reasoning_effort=effort) if isinstance(part, SystemContent) else part
            for part in message.content
        )
        return replace(message, content=content)

    return Conversation(tuple(map(update, conversation.messages)))
