"""Resolve the citations of an answer, such as `【6†L9-L11】`, to pages and lines.

    for each in find_citations(run):
        each.title, each.url, each.lines, each.status

Only what the model was shown counts. The lines come from the outputs of the browser in the run, so
this needs neither the browser nor the pages, and works on a run that was read from a file.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from oss_lab.agents.browser.page import strip_links
from oss_lab.agents.calls import CallRecord
from oss_lab.agents.run import Run
from oss_lab.harmony.messages import Message

CITATION = re.compile(r"【(\d+)†L(\d+)(?:\s*-\s*L?(\d+))?(?:†[^】]*)?】")
HEADER = re.compile(
    r"\[(\d+)\] (.*)\n\*\*viewing lines \[(\d+) - (\d+)\] of (\d+)\*\*\n\n(.*)", re.S
)
LINE = re.compile(r"^L(\d+): ", re.M)
ADDRESS = re.compile(r"(.*) \((\S*[/.:]\S*)\)")
PREFIX = "browser."

Status = Literal["shown", "partly shown", "not shown", "no such page"]


@dataclass(frozen=True)
class Display:
    """What the model saw at a cursor: a page and some of its lines."""

    cursor: int
    title: str
    url: str
    lines: dict[int, str]
    last: int  # the last line of the page


@dataclass(frozen=True)
class Citation:
    """A citation and what it refers to.

    Attributes:
        start, end: its place in the text.
        first, last: the cited lines.
        lines: the text of those that the model was shown, without the marks of links.
        status: `shown`, or what is wrong with it.
    """

    start: int
    end: int
    cursor: int
    first: int
    last: int
    title: str
    url: str
    lines: tuple[str, ...]
    status: Status


def find_citations(run: Run, text: str | None = None) -> list[Citation]:
    """The citations in the answer of a run, or in another text, in order."""
    outputs = [message for message in run.conversation if message.role == "tool"]
    return resolve_citations(run.final or "" if text is None else text, outputs)


def resolve_citations(text: str, outputs: Iterable[Message | CallRecord | str]) -> list[Citation]:
    """The citations in a text, resolved with the outputs of browser calls."""
    displays = {each.cursor: each for each in map(read_display, outputs) if each is not None}
    return [_resolve(match, displays) for match in CITATION.finditer(text)]


def _resolve(match: re.Match[str], displays: dict[int, Display]) -> Citation:
    cursor, first = int(match[1]), int(match[2])
    last = max(first, int(match[3] or first))
    place = (match.start(), match.end(), cursor, first, last)
    here = displays.get(cursor)
    if here is None:
        return Citation(*place, "", "", (), "no such page")
    known = _collect_lines(here, displays.values())
    lines = [known[number] for number in range(first, min(last, here.last) + 1) if number in known]
    status: Status = (
        "shown" if len(lines) == last - first + 1 else "partly shown" if lines else "not shown"
    )
    return Citation(*place, here.title, here.url, tuple(map(strip_links, lines)), status)


def _collect_lines(here: Display, displays: Iterable[Display]) -> dict[int, str]:
    """The lines of a page that were shown at any cursor."""
    known: dict[int, str] = {}
    for each in displays:
        if here.url and each.url == here.url:
            known |= each.lines
    return known | here.lines


def read_display(output: Message | CallRecord | str) -> Display | None:
    """What an output shows; None if it is not a page of the browser."""
    if isinstance(output, Message):
        if not (output.author.name or "").removeprefix("functions.").startswith(PREFIX):
            return None
        output = output.text
    elif isinstance(output, CallRecord):
        output = output.output or ""
    header = HEADER.match(output)
    if header is None:
        return None
    address = ADDRESS.fullmatch(header[2])
    title, url = (address[1], address[2]) if address else (header[2], "")
    parts = LINE.split(header[6])  # "", number, line, number, line, ...
    numbers, texts = parts[1::2], parts[2::2]
    lines = {int(n): text.removesuffix("\n") for n, text in zip(numbers, texts, strict=True)}
    return Display(int(header[1]), title, url, lines, int(header[5]))


def write_footnotes(text: str, citations: Sequence[Citation]) -> str:
    """The text with `[1]`, `[2]`, ... for its citations, and a list of what they refer to."""
    numbers: dict[tuple[str, str, int, int], int] = {}
    notes: list[str] = []
    written, end = "", 0
    for each in citations:
        key = (each.url, each.title, each.first, each.last)
        if key not in numbers:
            numbers[key] = len(numbers) + 1
            notes.append(f"[{numbers[key]}] {_describe(each)}")
        written += f"{text[end : each.start]}[{numbers[key]}]"
        end = each.end
    return f"{written}{text[end:]}" + (f"\n\n{chr(10).join(notes)}" if notes else "")


def _describe(each: Citation) -> str:
    lines = f"line {each.first}" if each.first == each.last else f"lines {each.first}-{each.last}"
    if each.status == "no such page":
        return f"cursor {each.cursor}, {lines}: no such page"
    address = f" ({each.url})" if each.url else ""
    remark = "" if each.status == "shown" else f": {each.status}"
    return f"{each.title}{address}, {lines}{remark}"
