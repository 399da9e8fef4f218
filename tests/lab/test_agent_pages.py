"""Pages of the browser tool: their lines and links, from Markdown, notebooks and HTML."""

import textwrap
import time
from typing import Any

import pytest

from oss_lab.agents.browser import Page
from oss_lab.agents.browser.find import find_in_page
from oss_lab.agents.browser.markup import read_html, read_markdown, read_notebook
from oss_lab.agents.browser.page import VIEW, WIDTH, show_page, strip_links, wrap_lines

LONG = "\n".join(f"line number {n}" for n in range(400))


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


def test_links_can_be_removed():
    assert strip_links("see 【0†dogs】 and 【1†the web†a.org】") == "see dogs and the web"
