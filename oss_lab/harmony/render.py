"""A conversation -> token ids, and for every token what it is.

    <|start|> role [ to=recipient] [<|channel|>channel] [ content type] <|message|> content <|end|>

Every piece is tokenized on its own and never read for special tokens, so no text can pretend to be
structure. Two header layouts: `library` is the above; `model` writes what the assistant says with
the recipient behind the channel, as OpenAI's guide shows and gpt-oss samples it (tool outputs stand
recipient first in both). No beginning-of-text token. Old reasoning is left out by a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import tiktoken

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import ROLES, Conversation, Message, Role, TextContent
from oss_lab.harmony.policy import (
    MODES,
    Mode,
    PolicyName,
    dropped_messages,
    is_final,
    turn_start,
)
from oss_lab.harmony.sections import content_text, has_function_tools
from oss_lab.harmony.specials import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START, specials

Layout = Literal["library", "model"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Field = Literal[
    "start", "role", "recipient", "channel", "content_type", "message", "content", "end"
]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one token is.

    Attributes:
        message: index into the conversation given (dropped messages count); the generation prompt
            belongs to the message to come, index `len(conversation)`.
        field: the part of the message.
        start, end: characters of `Rendered.sources[message, field]` that the token covers. Tokens
            that share one character (a split emoji) share its span.
    """

    message: int
    field: Field
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """Label-aligned result: `tokens`, `annotations` and `loss_mask` have one entry per token.

    Attributes:
        loss_mask: True where the model itself has to produce the token; see `render`.
        sources: rendered text of each (message, field), in order; joined they are the whole text.
        dropped: indices of the messages that the policy left out.
        warnings: one sentence for each known trap that this rendering steps into.
    """

    tokens: list[int]
    annotations: list[Annotation]
    loss_mask: list[bool]
    sources: Mapping[tuple[int, Field], str]
    dropped: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The rendering with special tokens spelled out (to look at; do not encode it again)."""
        return "".join(self.sources.values())

    def source(self, position: int) -> str:
        """The characters that the token at `position` covers."""
        note = self.annotations[position]
        return self.sources[note.message, note.field][note.start : note.end]


def render(
    conversation: Conversation,
    encoding: tiktoken.Encoding,
    *,
    mode: Mode = "completion",
    policy: PolicyName = "spec",
    layout: Layout = "model",
    next_role: Role = "assistant",
    function_tools: bool | None = None,
) -> Rendered:
    """Render a conversation.

    Modes: `completion` adds `<|start|>` and `next_role`; `conversation` adds nothing; `training`
    makes the last token `<|return|>` if the last message is the assistant's on final; `message`
    renders the first message alone.

    The loss mask is True for what the assistant produces: its headers, analysis, calls, answers
    and stop tokens. It is False for `<|start|>assistant` where that was the prompt (the first
    message of a turn, or after a call), for the `<|end|>` that stands in history for a produced
    `<|return|>`, and for a whole turn of which a policy dropped something (to learn an answer
    without the reasoning it came from would teach not to think).

    Args:
        function_tools: whether the system message mentions function tools; None finds out.

    Raises:
        HarmonyError: an unknown name, a tool without a name, content that its role may not carry.
    """
    for value, names, what in ((mode, MODES, "mode"), (layout, LAYOUTS, "layout")):
        if value not in names:
            raise HarmonyError(f"unknown {what} {value!r}; use one of {', '.join(names)}")
    if next_role not in ROLES:
        raise HarmonyError(f"unknown role: {next_role}")
    messages = conversation.messages
    if mode == "message":
        if not messages:
            raise HarmonyError("mode 'message' renders the first message, and there is none")
        messages = messages[:1]
    if function_tools is None:
        function_tools = has_function_tools(conversation)
    dropped = dropped_messages(messages, policy, mode)
    writer = _Writer(encoding)
    for index, message in enumerate(messages):
        if index not in dropped:
            try:
                _render_message(writer, index, message, layout, function_tools)
            except HarmonyError as error:
                raise HarmonyError(f"messages[{index}]: {error}") from None
    if mode == "completion":
        writer.special(len(messages), "start", START)
        writer.text(len(messages), "role", next_role)
    ends_in_final = bool(messages) and is_final(messages[-1])
    if mode == "training" and ends_in_final:
        writer.replace_last(len(messages) - 1, RETURN)
    return Rendered(
        writer.tokens,
        writer.notes,
        _loss_mask(messages, dropped, writer),
        writer.sources,
        tuple(sorted(dropped)),
        _warnings(messages, dropped, mode),
    )


@dataclass(slots=True)
class _Writer:
    """Collects tokens and says what each is."""

    encoding: tiktoken.Encoding
    tokens: list[int] = field(default_factory=list)
    notes: list[Annotation] = field(default_factory=list)
    sources: dict[tuple[int, Field], str] = field(default_factory=dict)

    def special(self, message: int, part: Field, name: str) -> None:
        source = self.sources.get((message, part), "")
        self.sources[message, part] = source + name
        self.tokens.append(specials(self.encoding).ids[name])
        self.notes.append(Annotation(message, part, len(source), len(source) + len(name)))

    def text(
        self, message: int, part: Field, text: str, written: tuple[int, ...] | None = None
    ) -> None:
        """Encode `text` on its own; spans count characters, tokens are cut at bytes.

        Tokens that were written as this text are taken again: encoding it could give others.
        """
        source = self.sources.get((message, part), "")
        self.sources[message, part] = source + text
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise HarmonyError(
                f"the {part} has a lone surrogate at character {error.start}, which UTF-8 cannot"
                " hold; remove it"
            ) from None
        begun = len(source)  # characters whose first byte has been seen
        ids = written if written and spells(self.encoding, written, text) else None
        for token in self.encoding.encode_ordinary(text) if ids is None else ids:
            data = self.encoding.decode_single_token_bytes(token)
            first = begun - _continues(data[0])
            begun += sum(not _continues(byte) for byte in data)
            self.tokens.append(token)
            self.notes.append(Annotation(message, part, first, begun))

    def replace_last(self, message: int, name: str) -> None:
        self.tokens[-1] = specials(self.encoding).ids[name]
        self.notes[-1] = Annotation(message, "end", 0, len(name))
        self.sources[message, "end"] = name


def spells(encoding: tiktoken.Encoding, ids: tuple[int, ...], text: str) -> bool:
    """Whether these are ordinary tokens of exactly this text."""
    names = specials(encoding).names
    if any(id in names or id >= encoding.n_vocab for id in ids):
        return False
    try:
        return encoding.decode_bytes(ids) == text.encode()
    except KeyError:
        return False


def _continues(byte: int) -> bool:
    """Whether a UTF-8 byte is inside a character, not its first."""
    return byte & 0xC0 == 0x80


def _render_message(
    writer: _Writer, index: int, message: Message, layout: Layout, function_tools: bool
) -> None:
    writer.special(index, "start", START)
    writer.text(index, "role", _author(message))
    channel_first = layout == "model" and message.role == "assistant"
    if not channel_first:
        _recipient(writer, index, message)
    if message.channel is not None:
        writer.special(index, "channel", CHANNEL)
        writer.text(index, "channel", message.channel)
    if channel_first:
        _recipient(writer, index, message)
    if message.content_type is not None:
        kind = message.content_type
        if kind.startswith(CONSTRAIN):
            writer.text(index, "content_type", " ")
            writer.special(index, "content_type", CONSTRAIN)
            writer.text(index, "content_type", kind.removeprefix(CONSTRAIN))
        else:
            writer.text(index, "content_type", f" {kind}")
    writer.special(index, "message", MESSAGE)
    for part in message.content:
        written = part.ids if isinstance(part, TextContent) else None
        text = content_text(part, message.role, function_tools)
        writer.text(index, "content", text, written)
    called = message.role == "assistant" and message.recipient is not None
    writer.special(index, "end", CALL if called else END)


def _author(message: Message) -> str:
    role, name = message.role, message.author.name
    if role == "tool":
        if name is None:
            raise HarmonyError("Tools should have a name!")
        return name
    return role if name is None else f"{role}:{name}"


def _recipient(writer: _Writer, index: int, message: Message) -> None:
    if message.recipient is not None and message.recipient != "all":
        writer.text(index, "recipient", f" to={message.recipient}")


def _loss_mask(
    messages: tuple[Message, ...], dropped: frozenset[int], writer: _Writer
) -> list[bool]:
    cut_turns = {turn_start(messages, index) for index in dropped}
    by_model, prompted = set[int](), set[int]()  # messages; those whose start and role are given
    for index, message in enumerate(messages):
        if message.role == "assistant" and turn_start(messages, index) not in cut_turns:
            by_model.add(index)
            before = messages[index - 1] if index else None
            if before is None or before.role != "assistant" or _stops(before):
                prompted.add(index)
    mask = []
    for note in writer.notes:
        produced = note.message in by_model
        if note.field in ("start", "role"):
            produced = produced and note.message not in prompted
        elif note.field == "end" and produced and _stops(messages[note.message]):
            produced = writer.sources[note.message, "end"] != END
        mask.append(produced)
    return mask


def _stops(message: Message) -> bool:
    """Whether sampling stops behind this message of the assistant: an answer or a call."""
    return message.channel == "final" or message.recipient is not None


def _warnings(
    messages: tuple[Message, ...], dropped: frozenset[int], mode: Mode
) -> tuple[str, ...]:
    target = turn_start(messages, len(messages))
    if mode == "training" and any(index >= target for index in dropped):
        return (
            "the policy dropped reasoning of the last turn, which is the training target;"
            " use policy 'spec' or 'keep'",
        )
    return ()
