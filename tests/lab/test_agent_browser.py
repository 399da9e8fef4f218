"""The browser tool: the layout of pages, the stack, search in a corpus, and citations."""

import sqlite3
import textwrap
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from oss_lab.agents import (
    Agent,
    ScriptedModel,
    run_from_dict,
    run_to_dict,
    write_answer,
    write_call,
)
from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser import (
    Browser,
    Corpus,
    Page,
    find_citations,
    load_lessons,
    resolve_citations,
    write_footnotes,
)
from oss_lab.agents.browser.citations import read_display
from oss_lab.agents.browser.find import find_in_page
from oss_lab.agents.browser.markup import read_html, read_markdown, read_notebook
from oss_lab.agents.browser.page import VIEW, WIDTH, show_page, strip_links, wrap_lines
from oss_lab.agents.browser.terms import list_query_terms, list_terms
from oss_lab.agents.browser.tool import ABOVE, Window
from oss_lab.course import notebook_files
from oss_lab.errors import LabError
from oss_lab.harmony import BROWSER

LONG = "\n".join(f"line number {n}" for n in range(400))
ANIMALS = {
    "cats.md": "# Cats\n\nA cat sleeps all day. See [dogs](dogs.md) and [the web](https://a.org/b).",
    "dogs.md": "# Dogs\n\nA dog barks at a cat.\n\n![a picture of a dog](dog.png)",
    "sub/路由.md": "# 混合专家\n\n路由器为每个词元选择四个专家。专家是小型网络。",
    "sub/注意力.md": "# 注意力\n\n注意力读取前面的词元。滑动窗口限制距离。",
    "long.md": f"# Long\n\n{LONG}\n\n## The end\n\nA zebra is here.",
}


@pytest.fixture(scope="module")
def animals():
    return Corpus((read_markdown(text, url) for url, text in ANIMALS.items()), "animals")


@pytest.fixture
def window(animals):
    return Window(animals)


# Pages


def test_the_layout_of_a_page(window):
    assert window.open("cats.md") == (
        "[0] Cats (cats.md)\n"
        "**viewing lines [0 - 2] of 2**\n"
        "\n"
        "L0: # Cats\n"
        "L1: \n"
        "L2: A cat sleeps all day. See 【0†dogs】 and 【1†the web†a.org】."
    )


def test_lines_have_at_most_80_characters_and_lose_nothing():
    text = "one two " * 40 + "\n\n" + "x" * 200 + "\n" + "路由器" * 50
    lines = wrap_lines(text)
    assert max(map(len, lines)) == WIDTH
    assert "".join(lines) == text.replace("\n", "")
    assert wrap_lines("") == [""]


def test_a_link_is_not_broken():
    text = "word " * 14 + "【3†a link with seven words in it†example.org】 and more"
    assert [line for line in wrap_lines(text) if "【" in line] == [
        "【3†a link with seven words in it†example.org】 and more"
    ]


def test_a_viewport_has_about_a_thousand_tokens():
    page = Page("a", "A", LONG)
    shown = show_page(page, 0)
    assert 0.9 * VIEW < len(shown.partition("\n\n")[2].encode()) <= VIEW
    last = int(shown.partition("- ")[2].partition("]")[0])
    assert show_page(page, 1, last + 1).partition("\n\n")[2].startswith(f"L{last + 1}: ")
    assert show_page(Page("a", "A", "x"), 0).endswith("L0: x")
    assert show_page(page, 0, 398, 10).endswith("L398: line number 398\nL399: line number 399")


def test_a_page_cannot_fake_a_link_or_a_citation():
    page = read_markdown("【0†press here】 and 【6†L9-L11】 and [a†b 【x】](c.md)", "d.md")
    assert page.text == "〖0†press here〗 and 〖6†L9-L11〗 and 【0†a‡b 〖x〗】"
    assert page.links == {0: "c.md"}
    assert "【" not in read_html("<title>【0†t】</title><p>【0†p】</p>", "https://a.org").text
    assert read_html("<title>【0†t】</title>", "https://a.org").title == "〖0†t〗"


def test_markdown_links_are_relative_to_the_page():
    text = "[a](../x/b.md#part) [same](../x/b.md) [here](#part) [mail](mailto:a@b.c) ![i](p.png)"
    page = read_markdown(text, "notebooks/sub/c.md")
    assert page.links == {0: "notebooks/x/b.md"}
    assert page.text == "【0†a】 【0†same】 here mail i"


def test_a_notebook_is_its_text_and_its_code():
    cells = (
        '{"cell_type": "markdown", "source": ["# Title\\n", "Text"]},'
        '{"cell_type": "code", "source": "a = 1", "outputs": [{"text": "hidden"}]},'
        '{"cell_type": "code", "source": ""}'
    )
    page = read_notebook(f'{{"cells": [{cells}]}}', "n.ipynb")
    assert page.title == "Title"
    assert page.text == "# Title\nText\n\n```python\na = 1\n```"
    for text in ("[]", "{}", '{"cells": 1}', "{"):
        with pytest.raises(ValueError, match=r"not a notebook|Expecting"):
            read_notebook(text, "n.ipynb")


def test_html_becomes_text():
    html = """<html><head><title> A &amp;\n B </title><style>p {}</style></head><body>
    <script>alert("【0†x】")</script><h2>Head</h2><p>One <b>two</b>&nbsp;three<br>four</p>
    <ul><li>first</li><li><a href="/x?a=1&amp;b=2">second</a></li></ul>
    <a href="https://other.org/y">other</a><a href="/x?a=1&b=2#top">again</a>
    <a href="javascript:alert(1)">no</a><a href="#top">up</a><a>bare</a>
    <pre>a  b
  c</pre><p>unclosed <a href="/z">link</body></html>"""
    page = read_html(html, "https://a.org/d/e")
    assert page.title == "A & B"
    assert page.links == {
        0: "https://a.org/x?a=1&b=2", 1: "https://other.org/y", 2: "https://a.org/z"
    }  # fmt: skip
    for part in (
        "## Head", "One two three\nfour", "* first", "* 【0†second】", "【1†other†other.org】",
        "【0†again】", "unclosed 【2†link】",
    ):  # fmt: skip
        assert part in page.text
    assert "alert" not in page.text
    assert "javascript" not in str(page.links)
    assert "\n\n\n" not in page.text


@pytest.mark.parametrize("html", ["", "<", "<a href='", "<p" * 1000, "</p></a>", "<!--", "\0"])
def test_broken_html_is_read(html):
    assert isinstance(read_html(html, "https://a.org").text, str)


LONG_INPUTS = (
    "[", "[a](", "![", "[[x]", "x", "【1†a", " ", "<", "<a ", "<!--", "<a href='", "&", "<p>", "</",
    "<![CDATA[", "<script>", "<?", "<a>x", "<script></script ", "{\"a\":1},", "\n", "词",
)  # fmt: skip


@pytest.mark.parametrize("piece", LONG_INPUTS)
def test_no_page_can_stall_the_browser(piece):
    """`html.parser` and `textwrap` take minutes for some of these."""
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    for page in (read_markdown(text, "a"), read_html(text, "https://a.org/")):
        assert max(map(len, page.lines)) <= WIDTH
        find_in_page(page, "one two")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("line", ["", " ", "a  b", "x" * 500, " " * 200, "ab cd " * 30, "词" * 90])
def test_wrapping_is_that_of_textwrap(line):
    options: Any = {
        "replace_whitespace": False,
        "drop_whitespace": False,
        "break_on_hyphens": False,
    }
    assert wrap_lines(line) == (textwrap.wrap(line, WIDTH, **options) or [""])


# The window


def test_search_shows_links_that_open_at_the_passage(window):
    shown = window.search("zebra")
    assert shown.startswith("[0] zebra\n**viewing lines [0 - 4] of 4**\n\nL0: \nL1: URL: \n")
    assert "L4:   * 【0†Long】 A zebra is here." in shown
    opened = window.open(0)
    assert opened.startswith("[1] Long (long.md)\n")
    assert opened.endswith("A zebra is here.")
    first = int(opened.partition("lines [")[2].partition(" ")[0])
    assert first == 405 - ABOVE
    assert "**viewing lines [0 - " in window.open(0, cursor=0, loc=0)


def test_the_stack_keeps_every_display(window):
    window.search("cat")
    window.open("cats.md")
    window.open(0)  # the link to dogs
    assert window.open(cursor=1).startswith("[3] Cats (cats.md)")
    assert window.open(0, cursor=1).startswith("[4] Dogs (dogs.md)")
    assert window.find("bark").startswith(
        "[5] Find results for text: `bark` in `Dogs` (dogs.md/find?"
    )
    assert len(window.stack) == 6


def test_scrolling(window):
    window.open("long.md")
    assert window.open(loc=100, num_lines=2).endswith(
        "**viewing lines [100 - 101] of 405**\n\nL100: line number 98\nL101: line number 99"
    )
    assert window.open(loc=405).endswith("[405 - 405] of 405**\n\nL405: A zebra is here.")


def test_the_source_of_a_page(window):
    window.open("cats.md")
    shown = window.open(view_source=True)
    assert "(view-source:cats.md)" in shown
    assert "See [dogs](dogs.md)" in shown
    assert window.open("view-source:cats.md").partition("\n")[2] == shown.partition("\n")[2]


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda w: w.open(), "no page is open; use browser.search first"),
        (lambda w: w.find("x"), "no page is open"),
        (lambda w: (w.open("cats.md"), w.open(9)), "the page has no link 9; its links are 0 to 1"),
        (lambda w: (w.open("dogs.md"), w.open(0)), "the page has no link 0; it has no links"),
        (lambda w: (w.open("cats.md"), w.open(cursor=4)), "no cursor 4; the cursors are 0 to 0"),
        (lambda w: (w.open("cats.md"), w.open(cursor=-3)), "there is no cursor -3"),
        (lambda w: (w.open("cats.md"), w.open(loc=3)), "no line 3; the last line is 2"),
        (lambda w: (w.open("cats.md"), w.open(loc=0.5)), "loc is 0.5; use an integer"),
        (lambda w: w.open("cat.md"), "there is no page 'cat.md'; did you mean 'cats.md'"),
        (lambda w: w.open("https://a.org/"), "there is no page 'https://a.org/'; search for it"),
        (lambda w: w.search("!?"), "has no word to search for"),
        (lambda w: (w.open("cats.md"), w.find("  ")), "the pattern must have 1 to 300 characters"),
        (lambda w: (w.open("cats.md"), w.find("x" * 301)), "the pattern must have 1 to 300"),
    ],
)
def test_a_mistake_of_the_model_is_one_sentence_and_leaves_the_stack(animals, act, sentence):
    window = Window(animals)
    with pytest.raises(CallError, match=sentence):
        act(window)
    assert len(window.stack) <= 1


def test_an_id_written_as_text_is_a_link(window):
    window.open("cats.md")
    assert window.open("0").startswith("[1] Dogs")
    assert window.open(0.0, cursor=0.0).startswith("[2] Dogs")


def test_find_ignores_case_line_breaks_and_links():
    text = (
        "The Router "
        + "picks " * 20
        + "experts\nand [the router](r.md) again\n\n路由器为每个词元选择"
    )
    page = read_markdown(text, "p.md")
    for pattern in ("router picks", "PICKS EXPERTS", "experts and the router", "the  router again"):
        assert "【0†match at L" in find_in_page(page, pattern).text, pattern
    narrow = Page("n", "N", "词" * 79 + "路由器")
    assert find_in_page(narrow, "路由器").places == {0: 0}
    assert find_in_page(page, "a.*b").text == "No `find` results for pattern: `a.*b`"


def test_a_match_opens_at_its_line(window):
    window.open("long.md")
    found = window.find("line number 200")
    assert "L0: # 【0†match at L202】" in found
    assert window.open(0).startswith(f"[2] Long (long.md)\n**viewing lines [{202 - ABOVE} - ")


def test_many_matches_are_shown_as_separate_places():
    found = find_in_page(Page("a", "A", LONG), "line")
    assert len(found.links) == 50
    assert found.places[0] == 0
    assert found.places[1] == 4


# The corpus


def test_chinese_words_are_found(animals):
    assert [each.url for each in animals.search("专家", 5)] == ["sub/路由.md"]
    assert animals.search("滑动窗口", 5)[0].url == "sub/注意力.md"
    assert {each.url for each in animals.search("词元", 5)} == {"sub/路由.md", "sub/注意力.md"}
    assert animals.search("由专", 5) == []  # these two characters are not neighbors
    assert animals.search("狗", 5) == []
    assert animals.search("窗", 5)[0].url == "sub/注意力.md"


def test_terms():
    assert list_terms("KV-cache ＫＶ") == ["kv", "cache", "kv"]
    assert list_terms("專家AI模型") == ["專", "家", "專家", "ai", "模", "型", "模型"]
    assert list_query_terms("路由器") == ["路由", "由器"]
    assert list_query_terms("路") == ["路"]
    assert list_query_terms("ルーター 토큰") == ["ルー", "ータ", "ター", "토큰"]
    assert list_query_terms('" OR NEAR( * ^') == ["or", "near"]


@pytest.mark.parametrize("query", ['"cat', "cat OR", "NOT cat", "cat*", "(cat", "a:cat", "cat -"])
def test_the_syntax_of_the_index_is_not_that_of_the_query(animals, query):
    assert animals.search(query, 5)[0].url in ("cats.md", "long.md")


def test_words_are_found_in_other_forms(animals):
    assert animals.search("barking", 5)[0].url == "dogs.md"
    assert animals.search("SLEEP", 5)[0].url == "cats.md"
    assert animals.search("animals with no entry", 5) == []


def test_the_lessons_are_the_default():
    lessons = load_lessons()
    assert load_lessons() is lessons
    assert len(lessons) >= 25
    assert Browser().source is lessons
    expected = {
        "router chooses experts": "notebooks/05_experts.ipynb",
        "attention sink softmax": "notebooks/04_attention.ipynb",
        "harmony channels analysis final": "notebooks/02_harmony.ipynb",
        "MXFP4 blocks and scales": "notebooks/06_mxfp4.ipynb",
    }
    for query, url in expected.items():
        assert url in [each.url for each in lessons.search(query, 3)], query
    assert lessons.open("05_experts.ipynb").url == "notebooks/05_experts.ipynb"


def test_an_installation_without_lessons(monkeypatch, tmp_path):
    monkeypatch.setattr(notebook_files, "SOURCES", (tmp_path,))
    with pytest.raises(LabError, match="this installation has no notebooks"):
        load_lessons.__wrapped__()


def test_a_folder_of_documents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("# One\n\nabout [two](sub/b.html)")
    (tmp_path / "sub" / "b.html").write_text("<title>Two</title><p>zebra")
    (tmp_path / "c.txt").write_text("plain giraffe")
    (tmp_path / "bad.ipynb").write_text("{")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "d.png").write_bytes(b"png")
    corpus = Corpus.of_folder(tmp_path)
    assert sorted(corpus.pages) == ["a.md", "c.txt", "sub/b.html"]
    window = Window(corpus)
    window.open("a.md")
    assert window.open(0).startswith("[1] Two (sub/b.html)")
    assert corpus.search("giraffe", 3)[0].title == "c.txt"
    with pytest.raises(LabError, match="is not a folder"):
        Corpus.of_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match="the empty has no pages"):
        Corpus.of_folder(tmp_path / "empty")


def test_sqlite_without_full_text_search_is_one_sentence(monkeypatch):
    class Without:
        def execute(self, *_):
            raise sqlite3.OperationalError("no such module: fts5")

    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: Without())
    with pytest.raises(LabError, match="has no full-text search"):
        Corpus([Page("a", "A", "x")])


def test_threads_share_a_corpus(animals):
    found = []

    def search():
        found.extend(animals.search("cat", 5)[0].url for _ in range(50))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 200
    assert len(set(found)) == 1


def test_a_browser_needs_a_source():
    with pytest.raises(LabError, match="expected a Corpus or a search service, got str"):
        Browser("notebooks")  # pyright: ignore[reportArgumentType]


# With an agent, and citations


def browse(answer, animals) -> Any:
    script = [
        write_call("browser.search", query="cat", thinking="I search.", channel="analysis"),
        write_call("browser.open", id=0, channel="analysis"),
        write_call("browser.open", cursor=1, loc=2, num_lines=1, channel="analysis"),
        write_call("browser.find", pattern="sleeps", channel="analysis"),
        write_call("browser.open", id="long.md", num_lines=5, channel="analysis"),
        write_answer(answer),
    ]
    return Agent(ScriptedModel(script), [Browser(animals)]).run("What do cats do?")


def test_an_agent_browses(animals):
    run = browse("They sleep【2†L2】.", animals)
    assert [each.status for each in run.calls] == ["ok"] * 5
    assert [each.output.partition(" ")[0] for each in run.calls] == [
        "[0]",
        "[1]",
        "[2]",
        "[3]",
        "[4]",
    ]
    assert run.replies[0].diagnostics == ()
    system = run.prompt.messages[0].content[0]
    assert system.tools == {"browser": BROWSER}
    outputs = [message for message in run.conversation if message.role == "tool"]
    assert {message.channel for message in outputs} == {"analysis"}


def test_citations_are_resolved_to_pages_and_lines(animals):
    answer = "Cats sleep【1†L2】, they have a heading【1†L0-L2】, and more【4†L2-L4】."
    first, second, third = find_citations(browse(answer, animals))
    assert (first.title, first.url, first.status) == ("Cats", "cats.md", "shown")
    assert first.lines == ("A cat sleeps all day. See dogs and the web.",)
    assert second.lines[0].startswith("# ")
    assert len(second.lines) == 3
    assert third.lines == ("line number 0", "line number 1", "line number 2")
    assert answer[third.start : third.end] == "【4†L2-L4】"
    assert all("【" not in line for each in (first, second, third) for line in each.lines)


def test_what_was_not_shown_is_said(animals):
    answer = "a【4†L3-L30】b【4†L200】c【9†L1】d【4†L9999】e【0†Cats】"
    found = find_citations(browse(answer, animals))
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


def test_citations_of_a_run_that_was_read(animals):
    run = browse("x【1†L2】y【4†L2-L4】", animals)
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


def test_only_outputs_of_the_browser_are_pages(animals):
    run = browse("x", animals)
    tools = [message for message in run.conversation if message.role == "tool"]
    assert all(read_display(message) is not None for message in tools)
    other = replace(tools[1], author=replace(tools[1].author, name="functions.fetch"))
    assert read_display(other) is None
    assert read_display("error: no page is open") is None


def test_titles_and_addresses_are_separated():
    for title, url in (("A (b)", "c/d.md"), ("A", "https://a.org/x_(y)"), ("What (is) this", "")):
        display: Any = read_display(show_page(Page(url, title, "x"), 3))
        assert (display.cursor, display.title, display.url) == (3, title, url)


def test_footnotes(animals):
    answer = "One【4†L2-L4】 two【4†L2-L4】 three【9†L1】 four【4†L300】."
    run = browse(answer, animals)
    assert write_footnotes(answer, find_citations(run)) == (
        "One[1] two[1] three[2] four[3].\n"
        "\n"
        "[1] Long (long.md), lines 2-4\n"
        "[2] cursor 9, line 1: no such page\n"
        "[3] Long (long.md), line 300: not shown"
    )
    assert write_footnotes("plain", []) == "plain"


def test_each_run_has_its_own_pages_and_a_session_keeps_them(animals):
    agent = Agent(
        ScriptedModel([write_call("browser.open", id="cats.md"), write_answer("x")]),
        [Browser(animals)],
    )
    assert [str(agent.run("?").calls[0].output)[:3] for _ in range(2)] == ["[0]", "[0]"]
    with agent.session() as session:
        shown = [str(session.run("?").calls[0].output)[:3] for _ in range(2)]
    assert shown == ["[0]", "[1]"]


def test_a_mistake_is_told_to_the_model_with_the_fields(animals):
    script = [
        write_call("browser.search", query="cat", top=3),
        write_call("browser.open", id=7),
        write_call("browser.close"),
        write_answer("x"),
    ]
    run: Any = Agent(ScriptedModel(script), [Browser(animals)]).run("?")
    assert [each.status for each in run.calls] == ["malformed", "malformed", "unknown tool"]
    assert "there is no field 'top'" in run.calls[0].output
    assert "no page is open" in run.calls[1].output
    assert "browser.open, browser.find" in run.calls[2].output


def test_links_can_be_removed():
    assert strip_links("see 【0†dogs】 and 【1†the web†a.org】") == "see dogs and the web"
