"""Classify a token of a rendered conversation by its characters and its place in Harmony."""

from oss_lab.harmony import Conversation
from oss_lab.harmony.render import Annotation

OPERATORS = frozenset("+-*=<>")


def classify_kind(source: str, note: Annotation) -> str:
    """The kind of characters; `structure` is everything but content, `other` is punctuation."""
    if note.field != "content":
        return "structure"
    if "\n" in source:
        return "newline"
    bare = source.strip()
    if bare.isdigit():
        return "digit"
    if bare and OPERATORS.issuperset(bare):
        return "operator"
    return "word" if any(c.isalpha() for c in bare) else "other"


def classify_field(conversation: Conversation, note: Annotation) -> str:
    """The place: the assistant's channel or another author's role, and the part of the message.

    `analysis content`, `final channel`, `user role`, ...
    """
    message = conversation.messages[note.message]
    speaker = message.channel if message.role == "assistant" else message.role
    return f"{speaker} {note.field}"
