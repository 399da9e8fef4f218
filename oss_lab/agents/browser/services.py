"""Search services for the browser, each by its key in the environment.

    brave     BRAVE_API_KEY      api.search.brave.com
    exa       EXA_API_KEY        api.exa.ai, which also returns the text of pages
    tavily    TAVILY_API_KEY     api.tavily.com, which also returns the text of pages
    searxng   SEARXNG_URL        your own instance, with `json` among its formats

`find_service()` takes the first one that the environment has. What a service does not return is
opened directly. Every query leaves this machine; nothing here is used unless you choose it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser.markup import read_html, read_markdown
from oss_lab.agents.browser.page import Page
from oss_lab.agents.browser.source import SearchResult
from oss_lab.agents.browser.web import Web, find_host
from oss_lab.errors import LabError, explain_unknown

MOST = 20  # results of one search


@dataclass(frozen=True)
class Service:
    """What differs between services.

    Attributes:
        variable: the environment variable with the key, or with the address of an instance.
        url: its public address; "" if the variable has it.
        search: asks for results: (service, query, count) -> the JSON answer.
        results: where the results are in the answer.
        snippet: the fields of a result that may hold a passage, best first.
        read: asks for the text of a page: (service, url) -> text, or None to open it directly.
    """

    name: str
    variable: str
    url: str
    search: "Callable[[WebSearch, str, int], Any]"
    results: tuple[str, ...]
    snippet: tuple[str, ...]
    read: "Callable[[WebSearch, str], str] | None" = None


@dataclass(frozen=True)
class WebSearch:
    """A search service as the source of a browser.

    Attributes:
        key: the key of the service; not shown.
        base: its address, by default the public one.
    """

    service: Service
    key: str = field(repr=False)
    base: str
    web: Web = field(default_factory=Web)

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def api(self) -> Web:
        """Requests to the service itself, whose address you chose; it may be on this machine."""
        return replace(self.web, allow_private=True)

    def search(self, query: str, count: int) -> list[SearchResult]:
        """At most `count` results.

        Raises:
            CallError: the service cannot be reached, or refuses.
        """
        answer = self.service.search(self, query, min(count, MOST))
        for key in self.service.results:
            answer = answer.get(key) if isinstance(answer, Mapping) else None
        if not isinstance(answer, list):
            raise CallError(f"{self.name} answered without results")
        found = [self._read_result(each) for each in answer if isinstance(each, Mapping)]
        return [result for result in found if result.url][:count]

    def open(self, url: str) -> Page:
        """The page at an address, from the service if it returns pages.

        Raises:
            CallError: the page cannot be read.
        """
        if self.service.read is not None:
            return read_markdown(self.service.read(self, url), url)
        answer = self.web.get(url)
        is_html = "html" in answer.kind
        return (read_html if is_html else read_markdown)(answer.text, answer.url)

    def _read_result(self, data: Mapping[str, Any]) -> SearchResult:
        texts = (data.get(name) for name in self.service.snippet)
        snippet = next((text for text in map(_join, texts) if text), "")
        return SearchResult(_join(data.get("url")), _join(data.get("title")), snippet)


def _join(value: Any) -> str:
    """The text of a field: text itself, or the texts of a list."""
    if isinstance(value, list):
        return " … ".join(each for each in value if isinstance(each, str))
    return value if isinstance(value, str) else ""


def _search_brave(self: WebSearch, query: str, count: int) -> Any:
    return self.api.ask_json(
        f"{self.base}/res/v1/web/search",
        parameters={"q": query, "count": count, "text_decorations": "false"},
        headers={"X-Subscription-Token": self.key},
    )


def _search_exa(self: WebSearch, query: str, count: int) -> Any:
    body = {"query": query, "numResults": count, "contents": {"highlights": True}}
    return self.api.ask_json(f"{self.base}/search", body=body, headers={"x-api-key": self.key})


def _read_exa(self: WebSearch, url: str) -> str:
    answer = self.api.ask_json(
        f"{self.base}/contents",
        body={"urls": [url], "text": True},
        headers={"x-api-key": self.key},
    )
    return _find_text(answer, "text", url)


def _search_tavily(self: WebSearch, query: str, count: int) -> Any:
    return self.api.ask_json(
        f"{self.base}/search",
        body={"query": query, "max_results": count},
        headers={"Authorization": f"Bearer {self.key}"},
    )


def _read_tavily(self: WebSearch, url: str) -> str:
    answer = self.api.ask_json(
        f"{self.base}/extract",
        body={"urls": [url]},
        headers={"Authorization": f"Bearer {self.key}"},
    )
    return _find_text(answer, "raw_content", url)


def _find_text(answer: Any, name: str, url: str) -> str:
    """The text of the first page in an answer."""
    results = answer.get("results") if isinstance(answer, Mapping) else None
    first = results[0] if isinstance(results, list) and results else None
    text = first.get(name) if isinstance(first, Mapping) else None
    if not isinstance(text, str) or not text:
        raise CallError(f"the service has no text of the page at {find_host(url)}")
    return text


def _search_searxng(self: WebSearch, query: str, count: int) -> Any:
    parameters = {"q": query, "format": "json"}
    return self.api.ask_json(f"{self.base}/search", parameters=parameters)


SERVICES: dict[str, Service] = {
    each.name: each
    for each in (
        Service(
            "brave",
            "BRAVE_API_KEY",
            "https://api.search.brave.com",
            _search_brave,
            ("web", "results"),
            ("description",),
        ),
        Service(
            "exa",
            "EXA_API_KEY",
            "https://api.exa.ai",
            _search_exa,
            ("results",),
            ("highlights", "summary", "text"),
            _read_exa,
        ),
        Service(
            "tavily",
            "TAVILY_API_KEY",
            "https://api.tavily.com",
            _search_tavily,
            ("results",),
            ("content",),
            _read_tavily,
        ),
        Service("searxng", "SEARXNG_URL", "", _search_searxng, ("results",), ("content",)),
    )
}


def find_service(name: str | None = None) -> WebSearch:
    """The service with this name, or the first whose variable is in the environment.

    Raises:
        LabError: the variable is not set.
    """
    if name is not None and name not in SERVICES:
        raise LabError(explain_unknown("search service", name, SERVICES))
    chosen = [SERVICES[name]] if name else list(SERVICES.values())
    for service in chosen:
        if value := os.environ.get(service.variable, "").strip():
            base = service.url or value.rstrip("/")
            return WebSearch(service, value if service.url else "", base)
    variables = ", ".join(service.variable for service in chosen)
    raise LabError(f"there is no search service: set one of {variables} in the environment")
