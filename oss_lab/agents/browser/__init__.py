"""The browser tool of gpt-oss: search, open and find, with pages that can be cited.

tool.py        Browser, a toolbox for an Agent; the stack of pages
page.py        a page as numbered lines with links; find.py finds a pattern in it
markup.py      pages from Markdown, notebooks and HTML (html_tags.py)
corpus.py      Corpus: pages on this machine, indexed by SQLite; terms.py also for Chinese
lessons.py     the default corpus, this project's lessons
services.py    search services by environment key: Brave, Exa, Tavily, SearXNG
web.py         bounded HTTP requests; source.py: what a corpus and a service have in common
citations.py   find_citations(run): which lines of which pages an answer cites
"""

from oss_lab.agents.browser.citations import (
    Citation,
    find_citations,
    resolve_citations,
    write_footnotes,
)
from oss_lab.agents.browser.corpus import Corpus
from oss_lab.agents.browser.lessons import load_lessons
from oss_lab.agents.browser.page import Page
from oss_lab.agents.browser.services import SERVICES, WebSearch, find_service
from oss_lab.agents.browser.source import SearchResult, Source
from oss_lab.agents.browser.tool import Browser
from oss_lab.agents.browser.web import Web

__all__ = [
    "SERVICES",
    "Browser",
    "Citation",
    "Corpus",
    "Page",
    "SearchResult",
    "Source",
    "Web",
    "WebSearch",
    "find_citations",
    "find_service",
    "load_lessons",
    "resolve_citations",
    "write_footnotes",
]
