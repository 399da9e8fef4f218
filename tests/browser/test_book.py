"""The book: built as `make book` builds it, then read as files, without a network."""

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed (extra `book`)")

from axe_playwright_python.sync_playwright import Axe
from oss_widgets.book.__main__ import ROOT, main

pytestmark = pytest.mark.browser

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
FORMS = ("wide", "dark"), ("phone", "light")
LIVE = ".oss-live"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("a folder") / "book"
    assert main(["--out", str(out)]) == 0
    return out


@pytest.fixture
def open_page(chromium, book: Path) -> Iterator[Any]:
    """open_page(name, size, theme) -> a Playwright page of the book.

    Fails at the end if a page requested anything but files of the book, or had an error.
    """
    problems: list[str] = []
    contexts: list[Any] = []
    allowed = (book.as_uri(), "data:", "blob:")

    def open_file(name: str, size: str = "wide", theme: str = "light", query: str = ""):
        width, height = SIZES[size]
        view = {"width": width, "height": height}
        context = chromium.new_context(viewport=view, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"error: {error.stack}"))
        page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        page.on("request", lambda made: made.url.startswith(allowed) or problems.append(made.url))
        page.on("requestfailed", lambda made: problems.append(f"missing: {made.url}"))
        page.goto((book / name).as_uri() + query)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


def list_pages(book: Path) -> list[str]:
    return sorted(page.relative_to(book).as_posix() for page in book.rglob("*.html"))


def test_every_lesson_has_a_page_in_the_navigation(book: Path) -> None:
    lessons = ROOT / "notebooks"
    files = [*lessons.glob("*.ipynb"), *lessons.glob("exercises/*.ipynb")]
    pages = {file.relative_to(ROOT).with_suffix(".html").as_posix() for file in files}
    front = (book / "index.html").read_text("utf-8")
    links = set(re.findall(r'reference internal" href="([^"#]+)"', front))
    assert len(pages) >= 3
    assert pages <= links


def test_no_page_loads_from_another_host_or_from_the_root(book: Path) -> None:
    loaded = re.compile(
        r'<(script|img|iframe)[^>]+src="(\w+:)?/|<(link|a)[^>]+href="/|<link[^>]+href="\w+:'
    )
    for page in list_pages(book):
        assert not loaded.search((book / page).read_text("utf-8")), page
    for sheet in book.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text("utf-8")), sheet


@pytest.mark.parametrize("size", SIZES)
def test_nano_answers_on_the_front_page(open_page, size: str) -> None:
    page = open_page("index.html", size)
    page.locator(f"{LIVE} .oss-chat").get_by_text("21514", exact=True).first.wait_for()
    box = page.locator("textarea.oss-chat-question")
    box.fill("What is 58 * 7?")
    box.press("Enter")
    page.locator(LIVE).get_by_text("406", exact=True).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_views_of_a_lesson_show_one_run_and_share_the_selection(open_page) -> None:
    page = open_page("notebooks/00_tour.html")
    chat, experts, _ = [page.locator(LIVE).nth(n) for n in range(3)]
    assert chat.locator(".oss-stored").is_visible()
    experts.scroll_into_view_if_needed()
    experts.get_by_role("application").first.wait_for()
    chat.scroll_into_view_if_needed()
    chat.locator(".oss-chat").get_by_text("51684").first.wait_for()
    assert not chat.locator(".oss-stored").is_visible()
    assert chat.get_by_text("Runs (1)").count() == 1


def test_without_javascript_the_stored_copies_are_read(chromium, book: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((book / "notebooks/00_tour.html").as_uri())
    assert page.locator(LIVE).nth(0).get_by_text("A stored copy.").is_visible()
    assert page.locator(f"{LIVE} .oss-stored").nth(1).is_visible()
    context.close()


def test_a_selection_is_shown_once_the_reply_is_finished(open_page, book: Path) -> None:
    lesson = (book / "notebooks/00_tour.html").read_text("utf-8")
    chosen = lesson.replace("selection&quot;: null", "selection&quot;: {CHOSEN}")
    chosen = chosen.replace(
        "CHOSEN", "&quot;token&quot;: 100, &quot;layer&quot;: 2, &quot;head&quot;: 3"
    )
    (book / "notebooks/chosen.html").write_text(chosen, "utf-8")
    view = open_page("notebooks/chosen.html").locator(LIVE).nth(2)
    view.scroll_into_view_if_needed()
    view.get_by_text("Head 3 of layer 2").wait_for()
    (book / "notebooks/chosen.html").unlink()


def test_an_old_browser_keeps_the_stored_copies_and_says_why(open_page) -> None:
    page = open_page("index.html")
    page.context.add_init_script("delete window.DecompressionStream")
    page.goto(page.url.replace("index", "notebooks/00_tour"))
    first = page.locator(LIVE).first
    first.get_by_role("alert").get_by_text("needs DecompressionStream").wait_for()
    assert first.locator(".oss-stored").is_visible()
    assert page.locator(".oss-chat").count() == 0


def test_search_finds_pages_and_the_theme_changes(open_page) -> None:
    page = open_page("index.html", theme="dark")
    page.locator("input.sidebar-search").fill("sliding window")
    page.keyboard.press("Enter")
    page.locator("#search-results a").get_by_text("A tour").wait_for()
    page.locator("#search-results a").get_by_text("A tour").click()
    page.get_by_role("heading", level=1).wait_for()
    theme = "document.documentElement.dataset.theme"
    page.wait_for_function(f"{theme} === 'dark'")
    page.locator(".theme-toggle:visible").first.click()
    page.wait_for_function(f"{theme} === 'light'")


def test_a_link_to_a_section_below_live_views_arrives_there(open_page) -> None:
    page = open_page("notebooks/01_tokens.html", query="#one-token-or-three")
    heading = page.get_by_role("heading", name="One token or three")
    heading.wait_for()
    page.wait_for_timeout(1000)  # a view that opened above the heading would have moved it by now
    assert 0 <= heading.bounding_box()["y"] < SIZES["wide"][1]
    page.mouse.wheel(0, -600)
    page.locator(LIVE).nth(1).locator("section.oss-view").wait_for()


def test_a_wide_picture_and_printed_columns_scroll_inside_a_phone_page(open_page) -> None:
    page = open_page("notebooks/08_transformer.html", "phone")
    for inner in ("figure.oss-picture > div", "p.oss-picture", ".tag_columns .cell_output pre"):
        place = page.locator(inner).first
        assert place.evaluate("place => place.scrollWidth > place.clientWidth"), inner
        assert place.get_attribute("tabindex") == "0", inner
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page(open_page, book: Path) -> None:
    """Every page once. Neighbors share their views, and have the other size and theme."""
    found = list[str]()
    for name, form in zip(list_pages(book), cycle(FORMS), strict=False):
        page = open_page(name, *form, "?q=router" if name == "search.html" else "")
        for view in page.locator(LIVE).all():
            view.scroll_into_view_if_needed()
            view.locator("section.oss-view").first.wait_for()
        if "oss-chat" in page.content():
            page.get_by_text("Runs (1)").first.wait_for()
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{name} is wider than the window")
        options = {"resultTypes": ["violations"], "preload": False}
        for each in Axe().run(page, options=options).response["violations"]:
            found += [f"{name}: {each['id']}: {node['html'][:200]}" for node in each["nodes"]]
        page.close()
    assert found == []
