"""Citations of an answer: the pages and lines that the model was shown."""

from dataclasses import replace
from typing import Any

from oss_lab.agents import (
    Agent,
    ScriptedModel,
    run_from_dict,
    run_to_dict,
    write_answer,
    write_call,
)
from oss_lab.agents.browser import (
    Browser,
    Corpus,
    Page,
    find_citations,
    resolve_citations,
    write_footnotes,
)
from oss_lab.agents.browser.citations import read_display
from oss_lab.agents.browser.markup import read_markdown
from oss_lab.agents.browser.page import show_page

CATS = "# Cats\n\nA cat sleeps all day. See [dogs](dogs.md) and [the web](https://a.org/b)."
LONG = "\n".join(f"line number {n}" for n in range(400))


def browse(answer) -> Any:
    """A run with this answer, after the outputs with cursors 0 to 4."""
    pages = [read_markdown(CATS, "cats.md"), read_markdown(f"# Long\n\n{LONG}", "long.md")]
    script = [
        write_call("browser.search", query="cat", channel="analysis"),
        write_call("browser.open", id=0, channel="analysis"),
        write_call("browser.open", cursor=1, loc=2, num_lines=1, channel="analysis"),
        write_call("browser.find", pattern="sleeps", channel="analysis"),
        write_call("browser.open", id="long.md", num_lines=5, channel="analysis"),
        write_answer(answer),
    ]
    return Agent(ScriptedModel(script), [Browser(Corpus(pages))]).run("What do cats do?")


def test_citations_are_resolved_to_pages_and_lines():
    answer = "Cats sleep【1†L2】, they have a heading【1†L0-L2】, and more【4†L2-L4】."
    first, second, third = find_citations(browse(answer))
    assert (first.title, first.url, first.status) == ("Cats", "cats.md", "shown")
    assert first.lines == ("A cat sleeps all day. See dogs and the web.",)
    assert second.lines[0].startswith("# ")
    assert len(second.lines) == 3
    assert third.lines == ("line number 0", "line number 1", "line number 2")
    assert answer[third.start : third.end] == "【4†L2-L4】"
    assert all("【" not in line for each in (first, second, third) for line in each.lines)


def test_what_was_not_shown_is_said():
    answer = "a【4†L3-L30】b【4†L200】c【9†L1】d【4†L9999】e【0†Cats】"
    found = find_citations(browse(answer))
    assert [each.status for each in found] == [
        "partly shown", "not shown", "no such page", "not shown"
    ]  # fmt: skip
    assert [len(each.lines) for each in found] == [2, 0, 0, 0]


def test_lines_that_another_display_of_the_page_showed_count():
    page = Page("a.md", "A", LONG)
    outputs = [show_page(page, 0, 0, 5), show_page(page, 1, 100, 5)]
    (found,) = resolve_citations("x【0†L102】", outputs)
    assert found.status == "shown"
    assert found.lines == ("line number 102",)


def test_citations_of_a_run_that_was_read():
    run = browse("x【1†L2】y【4†L2-L4】")
    back = run_from_dict(run_to_dict(run))
    assert find_citations(back) == find_citations(run)
    assert len(find_citations(back)) == 2


def test_other_ways_to_write_a_citation():
    outputs = [show_page(Page("a.md", "A", LONG), 0)]
    for text in ("【0†L2-L3】", "【0†L2-3】", "【0†L2 - L3】", "【0†L2-L3†source】"):
        (found,) = resolve_citations(text, outputs)
        assert (found.first, found.last, found.status) == (2, 3, "shown")
    (found,) = resolve_citations("【0†L5-L3】", outputs)
    assert (found.first, found.last) == (5, 5)
    assert resolve_citations("【0】 【x†L1】 [0†L1]", outputs) == []


def test_only_outputs_of_the_browser_are_pages():
    run = browse("x")
    tools = [message for message in run.conversation if message.role == "tool"]
    assert all(read_display(message) is not None for message in tools)
    other = replace(tools[1], author=replace(tools[1].author, name="functions.fetch"))
    assert read_display(other) is None
    assert read_display("error: no page is open") is None


def test_titles_and_addresses_are_separated():
    for title, url in (("A (b)", "c/d.md"), ("A", "https://a.org/x_(y)"), ("What (is) this", "")):
        display: Any = read_display(show_page(Page(url, title, "x"), 3))
        assert (display.cursor, display.title, display.url) == (3, title, url)


def test_footnotes():
    answer = "One【4†L2-L4】 two【4†L2-L4】 three【9†L1】 four【4†L300】."
    run = browse(answer)
    assert write_footnotes(answer, find_citations(run)) == (
        "One[1] two[1] three[2] four[3].\n"
        "\n"
        "[1] Long (long.md), lines 2-4\n"
        "[2] cursor 9, line 1: no such page\n"
        "[3] Long (long.md), line 300: not shown"
    )
    assert write_footnotes("plain", []) == "plain"
