"""Split HTML into tags and text, in time linear in its length.

Python's `html.parser` takes minutes for 100 kB of unfinished tags, so a page could stall the
browser. Here, a tag ends at the next `>`. Comments, scripts and styles are left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

RAW = {name: re.compile(f"</{name}", re.I) for name in ("script", "style")}
NAME = re.compile(r"/?([a-zA-Z][^\s/>]{0,40})")
VALUE = r"""(?:"([^"]{0,2000})"|'([^']{0,2000})'|([^\s"'>]{1,2000}))"""
TARGET = re.compile(rf"\shref\s{{0,9}}=\s{{0,9}}{VALUE}", re.I)


@dataclass(frozen=True)
class Tag:
    """A tag, or text between tags.

    Attributes:
        name: in lower case; "" for text.
        text: of text, with its character references resolved.
        target: the `href` of a tag; "" if it has none.
    """

    name: str
    is_end: bool = False
    text: str = ""
    target: str = ""


def scan_html(html: str) -> Iterator[Tag]:
    """The tags and the text between them, in order."""
    place = 0
    while place < len(html):
        start = html.find("<", place)
        start = len(html) if start < 0 else start
        if start > place:
            yield Tag("", text=unescape(html[place:start]))
        place = start
        if html.startswith("<!--", place):
            end = html.find("-->", place + 4)
            place = len(html) if end < 0 else end + 3
        elif name := NAME.match(html, place + 1):
            end = html.find(">", place)
            if end < 0:
                return  # the page ends inside a tag
            tag = read_tag(name[1].lower(), html[place : end + 1])
            yield tag
            place = end + 1
            if tag.name in RAW and not tag.is_end:
                closing = RAW[tag.name].search(html, place)
                place = len(html) if closing is None else closing.start()
        elif html[place + 1 : place + 2] in ("!", "?", "/"):
            end = html.find(">", place)
            place = len(html) if end < 0 else end + 1
        elif place < len(html):
            yield Tag("", text="<")
            place += 1


def read_tag(name: str, text: str) -> Tag:
    """The tag with this name and this text, which begins with `<` and ends with `>`."""
    found = TARGET.search(text) if name == "a" else None
    target = "" if found is None else next(each for each in found.groups() if each is not None)
    return Tag(name, text.startswith("</"), target=unescape(target).strip())
