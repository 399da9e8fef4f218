"""The parts of the chat format that can be replaced: how one message, and one reply, is written.

    render_message(message, encoding) -> ids
    parse_reply(ids, encoding) -> messages

`render_prompt` writes a prompt with another renderer of messages. It also decides which messages
are in the prompt: the policy is `spec`, as in `render`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import tiktoken

from oss_lab.harmony.messages import Conversation, Message, TextContent
from oss_lab.harmony.parse import parse
from oss_lab.harmony.policy import find_dropped_messages
from oss_lab.harmony.render import render
from oss_lab.harmony.sections import content_text, has_function_tools
from oss_lab.harmony.specials import START

RenderMessage = Callable[[Message, tiktoken.Encoding], list[int]]
"""`render_message`, or another function of the same arguments."""
ParseReply = Callable[[tuple[int, ...], tiktoken.Encoding], list[Message]]
"""`parse_reply`, or another function of the same arguments."""


def render_message(message: Message, encoding: tiktoken.Encoding) -> list[int]:
    """The ids of one message whose content is text, from `<|start|>` to its end token.

        <|start|>author<|channel|>channel to=recipient <|constrain|>type<|message|>text<|end|>

    Channel, recipient and type are left out if they are None. The author is the role; for a tool,
    its name. In a tool's message the recipient follows the author. A call ends with `<|call|>`.
    Each field is encoded separately, and special tokens in it are ordinary text.
    """
    return render(Conversation.of(message), encoding, mode="message").tokens


def parse_reply(ids: Sequence[int], encoding: tiktoken.Encoding) -> list[Message]:
    """The messages of a reply. The prompt ended with `<|start|>assistant`, so `ids` follow it."""
    return parse(ids, encoding, "assistant")


def render_prompt(
    conversation: Conversation,
    encoding: tiktoken.Encoding,
    render_message: RenderMessage = render_message,
) -> list[int]:
    """The ids of a prompt, up to `<|start|>assistant`; `render_message` writes each message.

    System and developer contents are converted to text first.
    """
    has_tools = has_function_tools(conversation)
    dropped = find_dropped_messages(conversation.messages, "spec", "completion")
    kept = (message for n, message in enumerate(conversation) if n not in dropped)
    ids = [id for each in kept for id in render_message(to_text(each, has_tools), encoding)]
    return [*ids, encoding.encode_single_token(START), *encoding.encode_ordinary("assistant")]


def to_text(message: Message, has_tools: bool) -> Message:
    """The message with each content as text."""
    contents = (
        part
        if isinstance(part, TextContent)
        else TextContent(content_text(part, message.role, has_tools))
        for part in message.content
    )
    return replace(message, content=tuple(contents))
