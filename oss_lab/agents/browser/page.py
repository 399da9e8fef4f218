"""A page as text: wrapped lines, numbered in a viewport, with links that have ids.

The layout is the one that the prompt of the built-in tool describes and gpt-oss was trained on:

    [3] Experts (notebooks/05_experts.ipynb)
    **viewing lines [0 - 41] of 210**

    L0: # Experts
    L1: Why does each layer have 【0†32 small networks】 ...

`3` is the cursor, `0` the id of a link. Brackets of this form in a page's own text are replaced, so
a page cannot contain what looks like a link or a citation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

WIDTH = 80  # characters of a line
VIEW = 4096  # bytes of text in a viewport, about 1,000 tokens
LINK = re.compile(r"【\d+†([^†】]+)(?:†[^†】]+)?】")
BRACKETS = str.maketrans({"【": "〖", "】": "〗", "\u200b": "", "\r": ""})
WORDS = re.compile(r"\s+|\S+")
NO_BREAK = "\u2060"  # joins the words of a link while lines are wrapped


@dataclass(frozen=True)
class Page:
    """A document, a page of results, or the places where a pattern occurs.

    Attributes:
        url: "" for a page of results.
        text: unwrapped, with links as `【id†text】`.
        links: the address of each link by id.
        places: the line at which the page of a link should be shown, by id of the link.
        source: what the page was made from, such as HTML; "" if it is not kept.
    """

    url: str
    title: str
    text: str
    links: dict[int, str] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The text in lines of at most WIDTH characters."""
        return tuple(wrap_lines(self.text))


def wrap_lines(text: str, width: int = WIDTH) -> list[str]:
    """Lines of at most `width` characters; a link that fits into a line is not broken."""
    joined = LINK.sub(lambda link: link[0].replace(" ", NO_BREAK), text)
    wrapped: list[str] = []
    for line in joined.split("\n"):
        wrapped += wrap_line(line, width)
    return [line.replace(NO_BREAK, " ") for line in wrapped]


def wrap_line(line: str, width: int) -> list[str]:
    """One line in parts; white space stays, and a word longer than a line is broken.

    The time is linear in the length of the line. `textwrap` needs hours for a long line without
    spaces, such as a file of JSON.
    """
    parts, current = list[str](), ""
    for word in WORDS.findall(line):
        if len(current) + len(word) <= width:
            current += word
        elif len(word) <= width:
            parts.append(current)
            current = word
        else:
            start = width - len(current)
            pieces = [current + word[:start]]
            pieces += [word[n : n + width] for n in range(start, len(word), width)]
            parts += pieces[:-1]
            current = pieces[-1]
    return [*parts, current]


def show_page(page: Page, cursor: int, first: int = 0, count: int = 0) -> str:
    """The viewport of a page.

    Args:
        first: the first line; from 0 to the number of lines - 1.
        count: lines to show; 0 shows as many as fit into VIEW bytes, at least one.
    """
    lines = page.lines
    end = min(first + count, len(lines)) if count > 0 else find_end(lines, first)
    address = f" ({page.url})" if page.url else ""
    numbered = (f"L{number}: {lines[number]}" for number in range(first, end))
    return (
        f"[{cursor}] {page.title}{address}\n"
        f"**viewing lines [{first} - {end - 1}] of {len(lines) - 1}**\n\n" + "\n".join(numbered)
    )


def find_end(lines: Sequence[str], first: int) -> int:
    """The line after the last one that fits into a viewport."""
    used = 0
    for number in range(first, len(lines)):
        used += len(f"L{number}: {lines[number]}\n".encode())
        if used > VIEW:
            return max(number, first + 1)
    return len(lines)


def escape_brackets(text: str) -> str:
    """The text with other brackets for those of links and citations."""
    return text.translate(BRACKETS)


def write_link(number: int, text: str, url: str, base: str = "") -> str:
    """A link: its id, its text, and its site if that differs from the site of the page."""
    shown = " ".join(escape_brackets(text).replace("†", "‡").split())
    site = find_site(url)
    return f"【{number}†{shown}†{site}】" if site != find_site(base) else f"【{number}†{shown}】"


def find_site(url: str) -> str:
    """The host of an address; "" if it has none.

    >>> find_site("https://example.org/a")
    'example.org'
    """
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def strip_links(text: str) -> str:
    """The text with each link replaced by its own text."""
    return LINK.sub(lambda link: link[1], text)
