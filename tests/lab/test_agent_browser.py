"""The browser tool: its stack of pages, search in a corpus, and what an agent does with it."""

import sqlite3
import threading
from typing import Any

import pytest

from oss_lab.agents import Agent, ScriptedModel, write_answer, write_call
from oss_lab.agents.arguments import CallError
from oss_lab.agents.browser import Browser, Corpus, Page, load_lessons
from oss_lab.agents.browser.find import find_in_page
from oss_lab.agents.browser.markup import read_markdown
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


# The window


def test_the_layout_of_a_page(window):
    assert window.open("cats.md") == (
        "[0] Cats (cats.md)\n"
        "**viewing lines [0 - 2] of 2**\n"
        "\n"
        "L0: # Cats\n"
        "L1: \n"
        "L2: A cat sleeps all day. See 【0†dogs】 and 【1†the web†a.org】."
    )


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


# With an agent


def test_an_agent_browses(animals):
    script = [
        write_call("browser.search", query="cat", thinking="I search.", channel="analysis"),
        write_call("browser.open", id=0, channel="analysis"),
        write_call("browser.open", cursor=1, loc=2, num_lines=1, channel="analysis"),
        write_call("browser.find", pattern="sleeps", channel="analysis"),
        write_call("browser.open", id="long.md", num_lines=5, channel="analysis"),
        write_answer("They sleep【2†L2】."),
    ]
    run: Any = Agent(ScriptedModel(script), [Browser(animals)]).run("What do cats do?")
    assert [each.status for each in run.calls] == ["ok"] * 5
    assert [each.output[:3] for each in run.calls] == [f"[{number}]" for number in range(5)]
    assert run.replies[0].diagnostics == ()
    system = run.prompt.messages[0].content[0]
    assert system.tools == {"browser": BROWSER}
    outputs = [message for message in run.conversation if message.role == "tool"]
    assert {message.channel for message in outputs} == {"analysis"}


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
    assert "'top' was unexpected" in run.calls[0].output
    assert "no page is open" in run.calls[1].output
    assert "browser.open, browser.find" in run.calls[2].output
