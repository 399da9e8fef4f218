"""What a browser searches and opens: the interface of a corpus and of a search service."""

from dataclasses import dataclass
from typing import Protocol

from oss_lab.agents.browser.page import Page


@dataclass(frozen=True)
class SearchResult:
    """One result of a search.

    Attributes:
        snippet: a passage of the page, or the service's summary.
        line: the line of that passage in the page, or None if it is not known.
    """

    url: str
    title: str
    snippet: str
    line: int | None = None


class Source(Protocol):
    """Where pages come from. Its methods raise `CallError` with a sentence for the model."""

    @property
    def name(self) -> str: ...

    def search(self, query: str, count: int) -> list[SearchResult]:
        """At most `count` results, best first."""
        ...

    def open(self, url: str) -> Page:
        """The page at an address."""
        ...
