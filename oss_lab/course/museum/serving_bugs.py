"""Bugs before and after the model: in tokenizer, prompt, parser and stop tokens."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import tiktoken

from oss_lab.course.museum.visit import BuggyLab
from oss_lab.harmony import Conversation, Message, SystemContent
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.specials import END, find_special_tokens
from oss_lab.lab.workbench import Lab
from oss_lab.record.reply import Reply


class SpecialsInText(tiktoken.Encoding):
    """A tokenizer that reads `<|start|>` in text as the special token."""

    def encode_ordinary(self, text: str) -> list[int]:
        return self.encode(text, allowed_special="all")


class TokenByToken(tiktoken.Encoding):
    """A tokenizer that decodes each token to text by itself, so half a character becomes U+FFFD."""

    def decode_single_token_bytes(self, token: int) -> bytes:
        return super().decode_single_token_bytes(token).decode(errors="replace").encode()


def copy_encoding(kind: type[tiktoken.Encoding], encoding: tiktoken.Encoding) -> tiktoken.Encoding:
    """The same vocabulary as an object of another class."""
    specials = cast("Mapping[str, int]", encoding._special_tokens)
    return kind(
        encoding.name,
        pat_str=encoding._pat_str,
        mergeable_ranks=encoding._mergeable_ranks,
        special_tokens=dict(specials),
    )


def read_specials(lab: Lab) -> BuggyLab:
    return BuggyLab(lab, tokenizer=copy_encoding(SpecialsInText, lab.tokenizer))


def decode_token_by_token(lab: Lab) -> BuggyLab:
    return BuggyLab(lab, tokenizer=copy_encoding(TokenByToken, lab.tokenizer))


def drop_reasoning(lab: Lab) -> BuggyLab:
    """Earlier reasoning is never shown to the model, not even between two tool calls."""

    def change(given: Conversation) -> Conversation:
        return Conversation(
            tuple(m for m in given.messages if m.channel != "analysis" or is_call(m))
        )

    return BuggyLab(lab, change_prompt=change)


def forget_effort(lab: Lab) -> BuggyLab:
    """The system message always says `Reasoning: medium`."""

    def reset(content: Any) -> Any:
        is_system = isinstance(content, SystemContent)
        return replace(content, reasoning_effort="medium") if is_system else content

    def change(given: Conversation) -> Conversation:
        messages = (replace(m, content=tuple(map(reset, m.content))) for m in given.messages)
        return Conversation(tuple(messages))

    return BuggyLab(lab, change_prompt=change)


def stop_at_end(lab: Lab) -> BuggyLab:
    return BuggyLab(lab, stops=frozenset({find_special_tokens(lab.tokenizer).ids[END]}))


def forget_channels(lab: Lab) -> BuggyLab:
    """The special tokens are removed before the channels are read, so all text is the answer."""

    def change(reply: Reply) -> Reply:
        if reply.prompt is None:
            return reply
        text = re.sub(r"<\|\w+\|>", "", reply.text)
        return replace(reply, messages=(Message.of("assistant", text, channel="final"),))

    return BuggyLab(lab, change_reply=change)
