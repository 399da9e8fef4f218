"""`Corpus`: pages on this machine and a full-text index of them, with SQLite's FTS5.

Each page is indexed in passages of a few lines, so a result knows where in its page it is. Passages
are ranked by BM25, the title and the headings above a passage counting more. A page appears once,
with its best passage.
"""

import sqlite3
import threading
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser.markup import read_html, read_markdown, read_notebook
from oss_lab.agents.browser.page import Page, strip_links
from oss_lab.agents.browser.source import SearchResult
from oss_lab.agents.browser.terms import list_query_terms, list_terms
from oss_lab.errors import LabError, shorten

PASSAGE = 12  # lines
SNIPPET = 240  # characters
READERS = {".md": read_markdown, ".ipynb": read_notebook, ".html": read_html, ".htm": read_html}
TEXTS = (".txt", ".rst", ".py")
WEIGHTS = (1.0, 3.0, 2.0)  # of a passage's text, its page's title, the heading above it


class Corpus:
    """Pages and their index, in memory. Several threads can use one.

    Raises:
        LabError: this Python's SQLite has no FTS5, or there are no pages.
    """

    def __init__(self, pages: Iterable[Page], name: str = "corpus") -> None:
        self.name = name
        self.pages = {page.url: page for page in pages}
        if not self.pages:
            raise LabError(
                f"the {name} has no pages; give a folder with .md, .ipynb or .html files"
            )
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._fill()

    @classmethod
    def of_folder(cls, folder: str | Path, name: str | None = None) -> "Corpus":
        """The .md, .ipynb, .html, .txt, .rst and .py files of a folder and its subfolders."""
        root = Path(folder)
        if not root.is_dir():
            raise LabError(f"{root} is not a folder; give the folder of the documents")
        files = (file for file in sorted(root.rglob("*")) if file.is_file())
        pages = (read_file(file, file.relative_to(root).as_posix()) for file in files)
        return cls((page for page in pages if page is not None), name or root.name)

    def search(self, query: str, count: int) -> list[SearchResult]:
        """At most `count` pages, each with its best passage.

        Raises:
            CallError: the query has no word.
        """
        terms = list_query_terms(query)
        if not terms:
            raise CallError(f"the query {query!r} has no word to search for")
        wanted = " OR ".join(f'"{term}"' for term in terms)
        with self._lock:
            rows = self._database.execute(
                "SELECT url, line, bm25(passages, 0, 0, ?, ?, ?) AS score FROM passages"
                " WHERE passages MATCH ? ORDER BY score, url, line LIMIT 500",
                (*WEIGHTS, wanted),
            ).fetchall()
        best: dict[str, int] = {}
        for url, line, _ in rows:
            best.setdefault(url, int(line))
        return [self._describe(url, line, terms) for url, line in list(best.items())[:count]]

    def open(self, url: str) -> Page:
        """The page with this address, or the nearest to the top whose address ends like it.

        Raises:
            CallError: there is no such page.
        """
        if url in self.pages:
            return self.pages[url]
        bare = url.removeprefix("./").rstrip("/")
        ends = [each for each in self.pages if bare and each.endswith(f"/{bare}")]
        if ends:
            return self.pages[min(ends, key=lambda each: (each.count("/"), each))]
        close = get_close_matches(url, self.pages, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "search for it"
        raise CallError(f"there is no page {shorten(url, 80)!r}; {hint}")

    def _fill(self) -> None:
        try:
            self._database.execute(
                "CREATE VIRTUAL TABLE passages USING fts5(url UNINDEXED, line UNINDEXED, text,"
                " title, heading, tokenize = 'porter unicode61')"
            )
        except sqlite3.OperationalError as error:
            raise LabError(
                f"the SQLite of this Python has no full-text search ({error}); use another Python"
            ) from None
        for page in self.pages.values():
            heading = ""
            for first in range(0, len(page.lines), PASSAGE):
                lines = page.lines[first : first + PASSAGE]
                inside = [line for line in lines if line.startswith("#")]
                texts = ("\n".join(lines), page.title, "\n".join(inside) or heading)
                heading = inside[-1] if inside else heading
                row = (" ".join(list_terms(strip_links(text))) for text in texts)
                self._database.execute(
                    "INSERT INTO passages VALUES (?, ?, ?, ?, ?)", (page.url, first, *row)
                )

    def _describe(self, url: str, first: int, terms: list[str]) -> SearchResult:
        """A result: the passage from its first line with a term on."""
        page = self.pages[url]
        lines = page.lines[first : first + PASSAGE]
        wanted = set(terms)
        hits = [n for n, line in enumerate(lines) if wanted & set(list_terms(strip_links(line)))]
        start = hits[0] if hits else 0
        snippet = " ".join(strip_links(" ".join(lines[start:])).split())
        return SearchResult(url, page.title, shorten_at_word(snippet, SNIPPET), first + start)

    def __len__(self) -> int:
        return len(self.pages)

    def __repr__(self) -> str:
        return f"<Corpus {self.name!r} of {len(self)} pages>"


def read_file(file: Path, url: str) -> Page | None:
    """The page of a file; None if it is of another kind, or cannot be read as text."""
    kind = file.suffix.lower()
    if kind not in READERS and kind not in TEXTS:
        return None
    try:
        text = file.read_text("utf-8")
        return READERS[kind](text, url) if kind in READERS else read_markdown(text, url, file.name)
    except (OSError, ValueError):
        return None


def shorten_at_word(text: str, longest: int) -> str:
    """The beginning of a text, up to the end of a word if it has words."""
    if len(text) <= longest:
        return text
    cut = text[: longest - 1]
    return (cut.rpartition(" ")[0] if " " in cut[longest // 2 :] else cut) + "…"
