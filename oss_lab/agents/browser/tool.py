"""`Browser`: the built-in tool `browser` of gpt-oss, with search, open and find.

Every display gets the next cursor and stays on the stack, so the model can go back to it and cite
its lines. A page keeps one text while the browser is open.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser.find import find_in_page
from oss_lab.agents.browser.lessons import load_lessons
from oss_lab.agents.browser.page import Page, escape_brackets, show_page, write_link
from oss_lab.agents.browser.source import SearchResult, Source
from oss_lab.agents.tool import Tool
from oss_lab.errors import LabError, shorten
from oss_lab.harmony.builtin_tools import BROWSER
from oss_lab.harmony.messages import ToolNamespace

ABOVE = 4  # lines shown above the most relevant passage
MOST = 20  # results
VIEW_SOURCE = "view-source:"


class Browser:
    """A toolbox with the tools browser.search, browser.open and browser.find.

    Args:
        source: a `Corpus`, or a search service from `find_service`; by default the lessons.
    """

    def __init__(self, source: Source | None = None) -> None:
        missing = [name for name in ("name", "search", "open") if not hasattr(source, name)]
        if source is not None and missing:
            raise LabError(
                f"expected a Corpus or a search service, got {type(source).__name__}; make one with"
                " Corpus.of_folder(folder) or find_service()"
            )
        self.source: Source = load_lessons() if source is None else source

    @property
    def namespace(self) -> ToolNamespace:
        return BROWSER

    @contextmanager
    def open(self) -> Iterator[Mapping[str, Tool]]:
        """A browser without pages, as tools by name."""
        window = Window(self.source)
        functions = {"search": window.search, "open": window.open, "find": window.find}
        yield {
            f"browser.{each.name}": Tool.of(functions[each.name], each) for each in BROWSER.tools
        }

    def __repr__(self) -> str:
        return f"<Browser of {self.source!r}>"


class Window:
    """The pages of one browser. Each method returns what the model sees."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stack: list[Page] = []
        self._known: dict[str, Page] = {}

    def search(self, query: str, topn: float = 10, source: str = "") -> str:
        """Search, and show a page of results. `source` has no effect: there is one."""
        count = _to_integer(topn, "topn")
        results = self.source.search(query, max(1, min(count, MOST)))
        return self._show(build_results_page(query, results))

    def open(
        self,
        id: float | str = -1,
        cursor: float = -1,
        loc: float = -1,
        num_lines: float = -1,
        view_source: bool = False,
        source: str = "",
    ) -> str:
        """Follow a link, open an address, or scroll to another place of a page."""
        first, count = _to_integer(loc, "loc"), _to_integer(num_lines, "num_lines")
        place = None
        if isinstance(id, str) and not _is_number(id):
            page = self._open(id)
        elif (number := _to_integer(float(id), "id")) >= 0:
            here = self._get_page(cursor)
            if number not in here.links:
                raise CallError(f"the page has no link {number}; {_list_links(here)}")
            page, place = self._open(here.links[number]), here.places.get(number)
        else:
            page = self._get_page(cursor)
        if view_source:
            page = view_page_source(page)
        elif first < 0 and place is not None:
            first = max(0, place - ABOVE)
        return self._show(page, max(first, 0), count)

    def find(self, pattern: str, cursor: float = -1) -> str:
        """Show where a pattern occurs in a page."""
        return self._show(find_in_page(self._get_page(cursor), pattern))

    def _show(self, page: Page, first: int = 0, count: int = 0) -> str:
        """Put the page on the stack and show it; nothing changes if the line does not exist."""
        if first >= len(page.lines):
            raise CallError(f"there is no line {first}; the last line is {len(page.lines) - 1}")
        self.stack.append(page)
        return show_page(page, len(self.stack) - 1, first, count)

    def _get_page(self, cursor: float) -> Page:
        if not self.stack:
            raise CallError("no page is open; use browser.search first")
        number = _to_integer(cursor, "cursor")
        if number == -1:
            return self.stack[-1]
        if not 0 <= number < len(self.stack):
            raise CallError(
                f"there is no cursor {number}; the cursors are 0 to {len(self.stack) - 1}"
            )
        return self.stack[number]

    def _open(self, url: str) -> Page:
        wants_source = url.startswith(VIEW_SOURCE)
        bare = url.removeprefix(VIEW_SOURCE)
        if bare not in self._known:
            self._known[bare] = self.source.open(bare)
        page = self._known[bare]
        return view_page_source(page) if wants_source else page


def build_results_page(query: str, results: list[SearchResult]) -> Page:
    """The page of a search: one line per result, with a link, its site and a passage."""
    lines = ["", "URL: ", "# Search Results", ""]
    for number, result in enumerate(results):
        link = write_link(number, result.title or result.url, result.url)
        lines.append(f"  * {link} {shorten(escape_brackets(result.snippet), 400)}".rstrip())
    if not results:
        lines.append("No results.")
    links = {number: result.url for number, result in enumerate(results)}
    places = {n: result.line for n, result in enumerate(results) if result.line is not None}
    return Page("", " ".join(escape_brackets(query).split()), "\n".join(lines), links, places)


def view_page_source(page: Page) -> Page:
    """What a page was made from."""
    if not page.source:
        raise CallError("the source of this page is not kept")
    url, source = f"{VIEW_SOURCE}{page.url}", escape_brackets(page.source)
    return replace(page, url=url, text=source, links={}, places={})


def _to_integer(value: float, name: str) -> int:
    if value != int(value):
        raise CallError(f"{name} is {value}; use an integer")
    return int(value)


def _is_number(text: str) -> bool:
    """Whether a link's id was written as text; models do that."""
    return text.strip().lstrip("-").isdecimal()


def _list_links(page: Page) -> str:
    count = len(page.links)
    return f"its links are 0 to {count - 1}" if count else "it has no links"
