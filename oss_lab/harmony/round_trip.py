"""What can be rendered and read back: `parse(render(x)) == x` for every message that is accepted.

A header field is text inside the format. A tool named `system` would be rendered as the header of a
system message, and a space would end a name. So the header is read before it is written.
"""

from __future__ import annotations

from oss_lab.errors import HarmonyError
from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import HeaderFields, parse_header, spell_header
from oss_lab.harmony.messages import Message


def check_header_fields(message: Message) -> None:
    """Check that the header of this message can be read back from the layout `model`.

    Raises:
        HarmonyError: a field is empty, or would be read differently.
    """
    wanted = HeaderFields(message.author, message.channel, message.recipient, message.content_type)
    parts = spell_header(wanted, channel_first=message.role == "assistant")
    found = parse_header(parts, None)
    name, read_name = message.author.name, found.author.name
    if found.author.role != message.role or found.has(Kind.UNKNOWN_AUTHOR):
        read_name = None
    for what, value, read in (
        ("author's name", name, read_name),
        ("recipient", wanted.recipient, found.recipient),
        ("channel", wanted.channel, found.channel),
        ("content type", wanted.content_type, found.content_type),
    ):
        if value == "":
            raise HarmonyError(f"the {what} is empty; leave it out or give one")
        if value != read:
            raise HarmonyError(
                f"the {what} {value!r} cannot be read back from the header; use one word that is"
                " not part of the format"
            )
