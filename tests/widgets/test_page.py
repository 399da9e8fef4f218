"""The page: one file, opened as a file, without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
from oss_widgets import write_page
from oss_widgets.page.write import LIMIT

from oss_lab.errors import LabError
from oss_lab.hooks.selection import Selection
from oss_lab.record.token_labels import TokenLabel
from oss_lab.record.trace import Origin, Trace

QUESTION = "What is 347 * 62?"
BOX = "input[type=text]:visible, textarea:visible"
SIZES = {"wide": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "nano.html"
    assert write_page(out) == []
    return out


@pytest.fixture
def open_file(chromium) -> Iterator[Any]:
    """open_file(path, size, fragment) -> a Playwright page.

    Fails at the end if a page requested anything but itself, or had an error.
    """
    problems: list[str] = []
    contexts: list[Any] = []

    def open_page(path: Path, size: str = "wide", fragment: str = ""):
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"error: {error.stack}"))
        page.on("console", lambda line: line.type == "error" and problems.append(line.text))
        page.on(
            "request",
            lambda made: made.url.split("#")[0] == path.as_uri() or problems.append(made.url),
        )
        page.goto(path.as_uri() + fragment)
        page.locator("h2:visible").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


def ask(page, question: str = QUESTION) -> None:
    box = page.locator(BOX).first
    box.fill(question)
    box.press("Enter")


@pytest.mark.parametrize("size", SIZES)
def test_the_first_text_field_asks_at_high_effort(open_file, file: Path, size: str) -> None:
    page = open_file(file, size)
    box = page.locator(BOX).first
    assert box.is_enabled()
    effort = page.get_by_role("radiogroup", name="effort")
    assert effort.get_by_role("radio", name="high").get_attribute("aria-checked") == "true"
    ask(page)
    page.wait_for_function("document.body.innerText.includes('21514')")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


IS_FOCUSED = """
([selector, text]) => {
  const { activeElement: element } = document;
  return element.matches(selector) && element.textContent.includes(text);
}
"""


class Keyboard:
    """Uses a page as somebody does who has only a keyboard."""

    def __init__(self, page) -> None:
        self.page = page

    def go(self, selector: str, text: str = "") -> None:
        """Press Tab until an element that matches and has the text has the focus."""
        for _ in range(300):
            self.press("Tab")
            if self.page.evaluate(IS_FOCUSED, [selector, text]):
                return
        raise AssertionError(f"{selector} {text} cannot be reached with Tab")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go_to_view(self) -> None:
        """Use the button that moves the focus to the view with the task."""
        self.go("button", "Go to")
        self.press("Enter")

    def finish_step(self, title: str) -> None:
        """Wait until the step is done, and go to the next."""
        assert self.page.locator("h2:visible").first.inner_text().endswith(f": {title}")
        self.page.get_by_text("✓ Done").wait_for()
        self.go("button.oss-page-primary")
        self.press("Enter")


def test_every_step_is_completed_with_the_keyboard(open_file, file: Path) -> None:
    page = open_file(file)
    keys = Keyboard(page)
    keys.go("textarea")
    page.keyboard.type(QUESTION)
    keys.press("Enter")
    keys.finish_step("Ask")
    keys.go_to_view()
    keys.go("button.oss-token")
    keys.press("End", "Enter", *["ArrowLeft"] * 20, "Enter")
    keys.finish_step("Channels")
    keys.go("[role=radio][data-value=high]")
    keys.press("ArrowLeft")
    keys.finish_step("Effort")
    keys.go_to_view()
    keys.go(".oss-experts .oss-map")
    keys.press("ArrowRight", "ArrowDown", "Enter")
    keys.finish_step("Experts")
    keys.go_to_view()
    keys.go("button", "Ask again without it")
    keys.press("Enter")
    keys.finish_step("Knock one out")
    keys.go_to_view()
    keys.go(".oss-attention [role=radio]")
    keys.press("ArrowRight")
    keys.finish_step("Attention and the sink")
    keys.go_to_view()
    keys.go(".oss-microscope-detail button")
    keys.press("Enter")
    keys.finish_step("Four bits")
    keys.go("textarea")
    keys.press("Control+a")
    page.keyboard.type("What is 4821 * 739?")
    keys.press("Enter")
    keys.finish_step("Break it")
    assert page.evaluate("document.activeElement.textContent") == "Free lab"


def test_axe_finds_nothing_on_the_path_and_in_the_lab(open_file, file, find_violations) -> None:
    page = open_file(file, "phone")
    ask(page)
    page.get_by_text("✓ Done").wait_for()
    assert find_violations(page, None) == []
    page.get_by_role("radio", name="Free lab").click()
    page.locator("button.oss-token").nth(60).click()
    page.get_by_role("button", name="Pin this place").click()
    assert find_violations(page, None) == []
    for box in page.get_by_role("group", name="Open views").get_by_role("checkbox").all():
        box.check()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


TEXTS = ("<img src=x onerror=z()>", "</script><script>z()</script>", "<!-- <script>", "مرحبا")


def make_trace(tensors: dict[str, torch.Tensor], points: tuple[str, ...], layers: int) -> Trace:
    """A trace of a model that is not nano."""
    seq = len(next(iter(tensors.values())))
    labels = [
        TokenLabel(TEXTS[n % 4], 0, "assistant", "final", None, "content") for n in range(seq)
    ]
    return Trace(
        tokens=tuple(range(seq)),
        labels=tuple(labels),
        selection=Selection.of(points),
        layers=layers,
        heads_per_kv_head=8,
        tensors=tensors,
        origin=Origin(None, "reference", "float32", "cpu", None, (), {}),
    )


def test_a_stored_trace_is_shown_and_its_texts_stay_texts(open_file, tmp_path: Path) -> None:
    shape = (12, 4)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(2):
        tensors[f"moe.expert_ids/{layer}"] = torch.arange(48, dtype=torch.uint8).reshape(shape)
        tensors[f"moe.expert_weights/{layer}"] = torch.full(shape, 0.25)
    trace = make_trace(tensors, ("moe.expert_ids", "moe.expert_weights"), layers=2)
    trace.save(tmp_path / "<b>run.safetensors")
    assert write_page(tmp_path / "page.html", tmp_path / "<b>run.safetensors") == []
    page = open_file(tmp_path / "page.html")
    page.get_by_text("shows the stored trace <b>run.safetensors").wait_for()
    page.locator(".oss-tokens").get_by_text("onerror=z()").first.wait_for()
    page.locator(".oss-experts").get_by_role("application").wait_for()
    assert page.title() == "oss_lab: inside a language model"
    assert page.locator("img, b").count() == 0
    page.get_by_role("radio", name="Free lab").click()
    ask(page)
    page.wait_for_function("document.body.innerText.includes('21514')")


def test_what_does_not_fit_is_left_out_and_named(open_file, tmp_path: Path) -> None:
    layers, seq = 24, 400
    generator = torch.Generator().manual_seed(0)
    sizes = {"moe.expert_ids": 4, "attn.sink_mass": 64, "resid.post": 2880}
    tensors = {
        f"{name}/{layer}": torch.randint(32, (seq, width), generator=generator, dtype=torch.uint8)
        if name == "moe.expert_ids"
        else torch.rand(seq, width, generator=generator)
        for name, width in sizes.items()
        for layer in range(layers)
    }
    trace = make_trace(tensors, tuple(sizes), layers)
    trace.save(tmp_path / "large.safetensors")
    left_out = write_page(tmp_path / "page.html", tmp_path / "large.safetensors")
    assert (tmp_path / "page.html").stat().st_size <= LIMIT
    *sinks, residuals = left_out
    assert residuals == "resid.post in layers 0 to 23"
    assert [text.split(" in ")[0] for text in sinks] == ["attn.sink_mass"]
    page = open_file(tmp_path / "page.html", "phone")
    page.get_by_text(
        f"Left out, since a page with a trace has at most 5 MB: {sinks[0]};"
    ).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


STATE = "modules['views/permalink.js'].decode(location.hash.slice(1) || '')"


def test_a_link_shows_the_same_run_and_place_again(open_file, file: Path) -> None:
    page = open_file(file)
    ask(page, "What is 34 * 6?")
    page.get_by_text("✓ Done").wait_for()
    page.get_by_role("radio", name="Free lab").click()
    page.locator("button.oss-token").nth(60).click()
    page.get_by_role("radio", name="Dark").click()
    page.wait_for_function(f"{STATE}.theme === 'dark'")
    tokens = page.locator(".oss-token-list").text_content()
    again = open_file(file, fragment=page.evaluate("location.hash"))
    again.locator("button.oss-token[aria-pressed=true][data-n='60']").wait_for()
    assert again.evaluate("document.documentElement.dataset.theme") == "dark"
    again.get_by_text("finished").first.wait_for()
    assert again.locator(".oss-token-list").text_content() == tokens


def test_a_damaged_link_is_reported(open_file, file: Path) -> None:
    page = open_file(file, fragment="#%%%")
    page.get_by_role("alert").get_by_text("This link cannot be shown").wait_for()
    ask(page)
    page.wait_for_function("document.body.innerText.includes('21514')")


@pytest.mark.parametrize(
    ("out", "trace", "said"),
    [
        ("", None, "is a folder"),
        ("missing/page.html", None, "is not a folder"),
        ("notes.html", None, "exists and is not a page of oss_lab"),
        ("page.html", "missing.safetensors", "does not exist"),
        ("page.html", "notes.html", "is damaged or not a safetensors file"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, out: str, trace: str | None, said: str) -> None:
    (tmp_path / "notes.html").write_text("<!doctype html><p>mine")
    with pytest.raises(LabError, match=said):
        write_page(tmp_path / out, trace and tmp_path / trace)
    assert not (tmp_path / "page.html").exists()


def test_a_later_link_and_a_question_end_the_one_before(open_file, file: Path) -> None:
    """What an earlier link still has to do does not replace what is shown since."""
    page = open_file(file)
    page.evaluate(
        """() => {
          location.hash = "mode=lab&q=What+is+347+*+62%3F&e=high&t=90&forks="
            + encodeURIComponent('[{"at":100,"ids":[],"interventions":[]}]');
          setTimeout(() => (location.hash = "mode=lab&q=What+is+34+*+6%3F&e=low&t=5"), 30);
        }"""
    )
    page.locator("button.oss-token[aria-pressed=true][data-n='5']").wait_for()
    page.get_by_text("finished").first.wait_for()
    page.wait_for_timeout(500)  # the first link would have had the time for its fork
    assert "34 * 6?" in page.locator(".oss-chat-asked").inner_text()
    assert "forked" not in page.locator(".oss-chat-run-list").inner_text()
    assert page.locator("button.oss-token[aria-pressed=true]").get_attribute("data-n") == "5"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('{"maxTokens":0}', "maxTokens is 0"),
        ('{"tools":[{"name":"a","description":5}]}', "is damaged"),
        (
            '{"interventions":[{"kind":"AddVector","point":"resid.post","layer":0,"vector":{}}]}',
            "list",
        ),
        ('{"sampling":{"temperature":null}}', "temperature is null"),
    ],
)
def test_a_hostile_link_is_reported_and_the_page_goes_on(open_file, file, more, said) -> None:
    page = open_file(file, fragment=f"#q=hi&e=low&more={quote(more)}")
    alert = page.get_by_role("alert").get_by_text("This link cannot be shown")
    assert said in alert.inner_text()
    ask(page)
    page.wait_for_function("document.body.innerText.includes('21514')")
