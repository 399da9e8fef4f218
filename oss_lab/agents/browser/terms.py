"""Split text into search terms: words, and characters and pairs of characters in Chinese.

SQLite's FTS5 splits at white space, so it takes a Chinese sentence for a single word. Here, a run
of Chinese, Japanese or Korean characters is indexed as its characters and its pairs. A query with
at least two of them in a row looks for the pairs, which is close to a search for words.
"""

import re
import unicodedata

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
RUNS = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
IDEOGRAPH = re.compile(rf"[{CJK}]")


def list_terms(text: str) -> list[str]:
    """The terms under which a text is indexed, in order.

    >>> list_terms("moe.expert_ids 专家")
    ['moe', 'expert', 'ids', '专', '家', '专家']
    """
    terms: list[str] = []
    for run in RUNS.findall(fold(text)):
        terms += [*run, *pair(run)] if IDEOGRAPH.match(run) else [run]
    return terms


def list_query_terms(text: str) -> list[str]:
    """The terms to look for, each once.

    >>> list_query_terms("路由器 expert")
    ['路由', '由器', 'expert']
    """
    terms: list[str] = []
    for run in RUNS.findall(fold(text)):
        terms += (pair(run) or [run]) if IDEOGRAPH.match(run) else [run]
    return list(dict.fromkeys(terms))


def pair(run: str) -> list[str]:
    """Each two neighbors of a run of characters."""
    return [run[n : n + 2] for n in range(len(run) - 1)]


def fold(text: str) -> str:
    """Lower case, with the usual form of each character: full-width letters become ordinary."""
    return unicodedata.normalize("NFKC", text).casefold()
