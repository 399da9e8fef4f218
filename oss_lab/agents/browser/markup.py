"""Pages from Markdown, notebooks and HTML. Images and scripts are left out, links get ids."""

import json
import re
from typing import Any
from urllib.parse import urldefrag, urljoin

from oss_lab.agents.browser.html_tags import Tag, scan_html
from oss_lab.agents.browser.page import Page, escape_brackets, write_link

MARKDOWN_LINK = re.compile(  # each repetition has a bound: no page can stall it
    r"(!?)\[((?:[^\[\]]|\[[^\[\]]{0,200}\]){0,400})\]\(\s{0,9}<?([^)\s>\[]{1,1000})>?(?:\s[^)]{0,200})?\)"
)
# fmt: off
BLOCKS = {"address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset",
          "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li",
          "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul"}
# fmt: on
HIDDEN = frozenset({"noscript", "template", "svg", "math"})
HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


class Links:
    """The links of a page: the same address has one id."""

    def __init__(self, base: str) -> None:
        self.base, self.ids = base, dict[str, int]()

    def write(self, text: str, target: str) -> str:
        """A link with its id; plain text if it leads nowhere else."""
        url = urldefrag(urljoin(self.base, target))[0] if target and target[0] != "#" else ""
        is_address = "://" in url or not re.match(r"[a-zA-Z][\w+.-]*:", url)
        if not url or not is_address or not text.strip():
            return escape_brackets(text)
        number = self.ids.setdefault(url, len(self.ids))
        return write_link(number, text, url, self.base)

    @property
    def by_id(self) -> dict[int, str]:
        return {number: url for url, number in self.ids.items()}


def read_markdown(text: str, url: str, title: str | None = None) -> Page:
    """A page from Markdown, whose title is its first heading."""
    links = Links(url)
    parts: list[str] = []
    end = 0
    for match in MARKDOWN_LINK.finditer(text):
        parts.append(escape_brackets(text[end : match.start()]))
        is_image, shown, target = match[1], match[2], match[3]
        parts.append(escape_brackets(shown) if is_image else links.write(shown, target))
        end = match.end()
    parts.append(escape_brackets(text[end:]))
    return Page(url, title or find_heading(text) or url, "".join(parts), links.by_id, source=text)


def find_heading(text: str) -> str | None:
    """The first heading of a Markdown text."""
    heading = re.search(r"^#+ +(.+?) *#*$", text, re.M)
    return escape_brackets(heading[1]) if heading else None


def read_notebook(text: str, url: str) -> Page:
    """A page from a Jupyter notebook: its text, and its code in fences; outputs are left out.

    Raises:
        ValueError: it is not a notebook.
    """
    notebook: Any = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"{url} is not a notebook")
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell.get("source", "")).strip()
        is_code = cell.get("cell_type") == "code"
        if source:
            parts.append(f"```python\n{source}\n```" if is_code else source)
    return read_markdown("\n\n".join(parts), url)


def read_html(text: str, url: str, title: str | None = None) -> Page:
    """A page from HTML."""
    reader = _Reader(url)
    for tag in scan_html(text):
        reader.read(tag)
    body = re.sub(r"[ \t\xa0]+", " ", reader.text)
    body = re.sub(r" ?\n ?", "\n", body)
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    heading = " ".join("".join(reader.title).split())
    return Page(
        url, title or escape_brackets(heading) or url, body, reader.links.by_id, source=text
    )


class _Reader:
    """Collects the text of a page."""

    def __init__(self, url: str) -> None:
        self.links, self.title = Links(url), list[str]()
        self._parts: list[str] = []
        self._hidden = self._preformatted = 0
        self._in_title = False
        self._target: str | None = None
        self._anchor: list[str] = []  # the text of the open link

    @property
    def text(self) -> str:
        self._end_link()
        return "".join(self._parts)

    def read(self, tag: Tag) -> None:
        if not tag.name:
            self._read_text(tag.text)
        elif tag.is_end:
            self._end(tag.name)
        else:
            self._begin(tag)

    def _begin(self, tag: Tag) -> None:
        name = tag.name
        self._in_title |= name == "title"
        self._hidden += name in HIDDEN
        self._preformatted += name == "pre"
        if name == "a":
            self._end_link()
            self._target = tag.target
        elif name == "br":
            self._add("\n")
        elif name in BLOCKS:
            self._end_link()
            self._add("\n\n" + HEADINGS.get(name, "* " if name == "li" else ""))
        elif name in ("td", "th"):
            self._add(" ")

    def _end(self, name: str) -> None:
        if name == "title":
            self._in_title = False
        self._hidden -= name in HIDDEN and self._hidden > 0
        self._preformatted -= name == "pre" and self._preformatted > 0
        if name == "a" or name in BLOCKS:
            self._end_link()
        if name in BLOCKS:
            self._add("\n\n")

    def _read_text(self, text: str) -> None:
        if self._in_title:
            self.title.append(text)
        else:
            self._add(text if self._preformatted else re.sub(r"\s+", " ", text))

    def _add(self, text: str) -> None:
        if self._hidden:
            return
        if self._target is not None:
            self._anchor.append(text)
        else:
            self._parts.append(escape_brackets(text))

    def _end_link(self) -> None:
        if self._target is not None:
            self._parts.append(self.links.write("".join(self._anchor), self._target))
        self._target, self._anchor = None, []
