"""Harmony's state machine as a grammar: the messages of a reply, up to its answer.

The grammar is Lark text. It starts after `<|start|>assistant`, as a reply does. It ends where the
answer on `final` begins, or after a call. Every header in it is one that the parser reads without a
diagnostic: all combinations of its fields are tried. The content of these messages is free text.
llguidance matches text with ordinary tokens only, so no special token can be part of it.

    start: (other "<|start|>" "assistant")* (call | answer)

Left out: the arguments of a call, which are free text here, and messages without a channel.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import product

from oss_lab.errors import LabError
from oss_lab.harmony.demands import Demands
from oss_lab.harmony.header import CONTENT_TYPES, HeaderFields, Part, parse_header, spell_header
from oss_lab.harmony.messages import CHANNELS, Author
from oss_lab.harmony.specials import CALL, CONSTRAIN, END, MESSAGE, START

ASSISTANT = Author("assistant")
ANSWER = "final"
ANY_TOOL = "any.tool"  # a placeholder where every name is allowed
TERMINALS = r"""
text: TEXT?
TEXT: /(?s:.+)/
TOOL: /[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+/
"""
_TYPES = (None, *CONTENT_TYPES, *(f"{CONSTRAIN}{name}" for name in CONTENT_TYPES))


def write_harmony_grammar(recipients: Collection[str] | None, channels: Collection[str]) -> str:
    """The grammar of the replies to a prompt, as Lark text.

    Args:
        recipients: the declared tools, such as `functions.f`; None allows any name with a dot.
        channels: the channels that the system message demands; if empty, the usual three.

    Raises:
        LabError: there is no channel `final`.
    """
    channels = tuple(channels) or CHANNELS
    if ANSWER not in channels:
        raise LabError(
            f"the system message lists the channels {', '.join(channels)}, and a well-formed reply"
            f" needs {ANSWER} too; add it"
        )
    demands = Demands(recipients, channels, is_reply=True)
    names = [ANY_TOOL] if recipients is None else sorted(recipients)
    others = [HeaderFields(ASSISTANT, each) for each in channels if each != ANSWER]
    calls = [
        HeaderFields(ASSISTANT, channel, name, kind)
        for channel, name, kind in product(channels, names, _TYPES)
    ]
    other, call = (list(_write_headers(each, demands)) for each in (others, calls))
    (answer,) = _write_headers([HeaderFields(ASSISTANT, ANSWER)], demands)
    before = f'(other {START} "assistant")* ' if other else ""
    rules = [
        f"start: {before}({'call | ' if call else ''}answer)",
        f"answer: {answer} {MESSAGE}",
        *([f"other: ({' | '.join(other)}) {MESSAGE} text {END}"] if other else []),
        *([f"call: ({' | '.join(call)}) {MESSAGE} text {CALL}"] if call else []),
    ]
    grammar = "\n".join(rules)
    if recipients is None:
        grammar = grammar.replace(ANY_TOOL, '" TOOL "')  # it is inside a string
    return grammar + TERMINALS


def _write_headers(headers: Iterable[HeaderFields], demands: Demands) -> Iterator[str]:
    """The spellings of these headers, without the role, that give no diagnostic."""
    seen = set[str]()
    for header, first, space in product(headers, (True, False), (" ", "")):
        parts = spell_header(header, channel_first=first)
        parts[0] = (None, parts[0][1].removeprefix(ASSISTANT.role))  # the role is in the prompt
        if parts[-1][0] == CONSTRAIN:  # gpt-oss often omits the space before it
            marker, text = parts[-2]
            parts[-2] = (marker, text.removesuffix(" ") + space)
        read = parse_header(parts, ASSISTANT.role)
        spelling = _write_parts(parts)
        if read == header and not demands.check_header(read) and spelling not in seen:
            seen.add(spelling)
            yield spelling


def _write_parts(parts: list[Part]) -> str:
    """A header as a sequence of Lark's terminals: special tokens, and one string after each.

    A string is never divided. llguidance reads the longest terminal that fits, so two strings could
    hide another header that begins with the first.
    """
    items = [item for marker, text in parts for item in (marker, text and json.dumps(text)) if item]
    return " ".join(items)
