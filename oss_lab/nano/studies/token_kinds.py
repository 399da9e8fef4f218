"""What a token of a rendered conversation is: by its characters, and by its place in Harmony."""

from oss_lab.harmony import Conversation
from oss_lab.harmony.render import Annotation

OPERATORS = frozenset("+-*=<>")


def kind_of(source: str, note: Annotation) -> str:
    """By its characters; `structure` is all that is not content. Punctuation is `other`."""
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


def field_of(conversation: Conversation, note: Annotation) -> str:
    """By its place: the assistant's channel or another's role, and the part of the message.

    `analysis content`, `final channel`, `user role`, ...
    """
    message = conversation.messages[note.message]
    speaker = message.channel if message.role == "assistant" else message.role
    return f"{speaker} {note.field}"
