"""Render a conversation to token ids, with an annotation for every token.

    <|start|> role [ to=recipient] [<|channel|>channel] [ content type] <|message|> content <|end|>

Each piece is tokenized separately, and special tokens in it are not interpreted, so text cannot be
mistaken for structure. There are two header layouts. `library` is the one above. `model` puts the
recipient after the channel in assistant messages, as OpenAI's guide shows and as gpt-oss samples
it. In tool outputs the recipient comes first in both layouts. There is no beginning-of-text token.
A policy decides which earlier reasoning is left out.
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
    find_dropped_messages,
    find_turn_start,
    is_final,
)
from oss_lab.harmony.rendering_warnings import find_warnings
from oss_lab.harmony.round_trip import check_header_fields
from oss_lab.harmony.sections import content_text, has_function_tools
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
    find_special_tokens,
)
from oss_lab.tokenizer import encode_text

Layout = Literal["library", "model"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
"""The two header layouts: `layout` of `render`."""
Field = Literal[
    "start", "role", "recipient", "channel", "content_type", "message", "content", "end"
]


@dataclass(frozen=True, slots=True)
class Annotation:
    """The part of the conversation that one token belongs to.

    Attributes:
        message: index into the conversation, counting dropped messages. The generation prompt
            belongs to the next message, index `len(conversation)`.
        field: the part of the message.
        start, end: characters of `Rendered.sources[message, field]` that the token covers. Tokens
            that split one character (such as an emoji) all have its span.
    """

    message: int
    field: Field
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation: `tokens`, `annotations` and `loss_mask` have one entry per token.

    Attributes:
        loss_mask: True for tokens that the model must learn to produce; see `render`.
        sources: rendered text of each (message, field), in order; joined, they are the full text.
        dropped: indices of the messages that the policy left out.
        warnings: one sentence for each known problem of this rendering.
    """

    tokens: list[int]
    annotations: list[Annotation]
    loss_mask: list[bool]
    sources: Mapping[tuple[int, Field], str]
    dropped: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The rendering as text, special tokens included (for reading; do not encode it again)."""
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
    makes the last token `<|return|>` if the last message is the assistant's final answer;
    `message` renders only the first message.

    The loss mask is True for what the assistant produces: its headers, analysis, calls, answers
    and stop tokens. It is False for these exceptions:

    - `<|start|>assistant` where it was the prompt: the first message of a turn, or after a call;
    - an `<|end|>` in the history that replaced a generated `<|return|>`;
    - every token of a turn from which a policy dropped something. Learning an answer without the
      reasoning that led to it would teach the model not to think.

    Args:
        function_tools: whether the system message mentions function tools; None checks whether
            the conversation has any.

    Raises:
        HarmonyError: a name is unknown, a tool has no name, a role may not have this content, or
            (in layout `model`) a header field could not be read back.
    """
    for value, names, what in ((mode, MODES, "mode"), (layout, LAYOUTS, "layout")):
        if value not in names:
            raise HarmonyError(f"unknown {what} {value!r}; use one of {', '.join(names)}")
    if next_role not in ROLES:
        raise HarmonyError(f"unknown role {next_role!r}; use one of {', '.join(ROLES)}")
    messages = conversation.messages
    if mode == "message":
        if not messages:
            raise HarmonyError(
                "mode 'message' renders the first message, but the conversation is empty"
            )
        messages = messages[:1]
    if function_tools is None:
        function_tools = has_function_tools(conversation)
    dropped = find_dropped_messages(messages, policy, mode)
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
    if mode == "training" and messages and _is_answer(messages[-1], layout):
        writer.replace_last(len(messages) - 1, RETURN)
    return Rendered(
        writer.tokens,
        writer.notes,
        _build_loss_mask(messages, dropped, writer),
        writer.sources,
        tuple(sorted(dropped)),
        find_warnings(messages, dropped, policy=policy, mode=mode, next_role=next_role),
    )


def _is_answer(message: Message, layout: Layout) -> bool:
    """Whether a turn ends with this message. To the public library, a call on `final` is one."""
    if layout == "library":
        return message.role == "assistant" and message.channel == "final"
    return is_final(message)


@dataclass(slots=True)
class _Writer:
    """Collects tokens and their annotations."""

    encoding: tiktoken.Encoding
    tokens: list[int] = field(default_factory=list)
    notes: list[Annotation] = field(default_factory=list)
    sources: dict[tuple[int, Field], str] = field(default_factory=dict)

    def special(self, message: int, part: Field, name: str) -> None:
        source = self.sources.get((message, part), "")
        self.sources[message, part] = source + name
        self.tokens.append(find_special_tokens(self.encoding).ids[name])
        self.notes.append(Annotation(message, part, len(source), len(source) + len(name)))

    def text(
        self, message: int, part: Field, text: str, generated: tuple[int, ...] | None = None
    ) -> None:
        """Encode `text` separately. Spans count characters, but tokens may split a character.

        If the model generated this text, its tokens are reused: encoding could give different ones.
        """
        source = self.sources.get((message, part), "")
        self.sources[message, part] = source + text
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise HarmonyError(
                f"the {part} has a lone surrogate at character {error.start}, which UTF-8 cannot"
                " encode; remove it"
            ) from None
        seen = len(source)  # characters whose first byte has been seen
        ids = generated if generated and decodes_to(self.encoding, generated, text) else None
        for token in encode_text(self.encoding, text) if ids is None else ids:
            data = self.encoding.decode_single_token_bytes(token)
            first = seen - _is_continuation(data[0])
            seen += sum(not _is_continuation(byte) for byte in data)
            self.tokens.append(token)
            self.notes.append(Annotation(message, part, first, seen))

    def replace_last(self, message: int, name: str) -> None:
        self.tokens[-1] = find_special_tokens(self.encoding).ids[name]
        self.notes[-1] = Annotation(message, "end", 0, len(name))
        self.sources[message, "end"] = name


def decodes_to(encoding: tiktoken.Encoding, ids: tuple[int, ...], text: str) -> bool:
    """Whether these are ordinary tokens that decode to exactly this text."""
    names = find_special_tokens(encoding).names
    if any(id in names or not 0 <= id < encoding.n_vocab for id in ids):
        return False
    try:
        return encoding.decode_bytes(ids) == text.encode()
    except KeyError:
        return False


def _is_continuation(byte: int) -> bool:
    """Whether a UTF-8 byte continues a character, that is, is not its first byte."""
    return byte & 0xC0 == 0x80


def _render_message(
    writer: _Writer, index: int, message: Message, layout: Layout, function_tools: bool
) -> None:
    author = _author_text(message)
    if layout == "model":
        check_header_fields(message)
    writer.special(index, "start", START)
    writer.text(index, "role", author)
    channel_first = layout == "model" and message.role == "assistant"
    if not channel_first:
        _write_recipient(writer, index, message)
    if message.channel is not None:
        writer.special(index, "channel", CHANNEL)
        writer.text(index, "channel", message.channel)
    if channel_first:
        _write_recipient(writer, index, message)
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
        generated = part.ids if isinstance(part, TextContent) else None
        text = content_text(part, message.role, function_tools)
        writer.text(index, "content", text, generated)
    called = message.role == "assistant" and message.recipient is not None
    writer.special(index, "end", CALL if called else END)


def _author_text(message: Message) -> str:
    role, name = message.role, message.author.name
    if role == "tool":
        if name is None:
            raise HarmonyError("Tools should have a name!")
        return name
    return role if name is None else f"{role}:{name}"


def _write_recipient(writer: _Writer, index: int, message: Message) -> None:
    if message.recipient is not None and message.recipient != "all":
        writer.text(index, "recipient", f" to={message.recipient}")


def _build_loss_mask(
    messages: tuple[Message, ...], dropped: frozenset[int], writer: _Writer
) -> list[bool]:
    cut_turns = {find_turn_start(messages, index) for index in dropped}
    by_model, prompted = set[int](), set[int]()  # messages; start and role were the prompt
    for index, message in enumerate(messages):
        if message.role == "assistant" and find_turn_start(messages, index) not in cut_turns:
            by_model.add(index)
            before = messages[index - 1] if index else None
            if before is None or before.role != "assistant" or _ends_sampling(before):
                prompted.add(index)
    mask = []
    for note in writer.notes:
        produced = note.message in by_model
        if note.field in ("start", "role"):
            produced = produced and note.message not in prompted
        elif note.field == "end" and produced and _ends_sampling(messages[note.message]):
            produced = writer.sources[note.message, "end"] != END
        mask.append(produced)
    return mask


def _ends_sampling(message: Message) -> bool:
    """Whether sampling stops after this assistant message: an answer or a call."""
    return message.channel == "final" or message.recipient is not None
