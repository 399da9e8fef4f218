"""The Chat view with nano in the page: asked, stopped, changed and compared."""

import base64
import re
from typing import Any

import pytest
from oss_widgets import Chat

from oss_lab import AblateExpert
from oss_lab.nano.gallery import GALLERY
from oss_lab.record.token_labels import count_channel_tokens

PRODUCT = "What is 347 * 62?"
ANALYSIS = ".oss-chat-message[data-channel=analysis] .oss-chat-text"
FINAL = ".oss-chat-message[data-channel=final] .oss-chat-text"

# In the page: a Chat with its own source. `settings.pace`: milliseconds per token;
# `settings.expected`: what the source estimates; `settings.trace`: a file instead of the model.
SHOW = """({ pace = 0, expected = null, trace = null, ...options }) => {
  window.chat?.close();
  document.querySelector("#view").replaceChildren();
  const readTrace = () => Uint8Array.from(atob(trace), (letter) => letter.charCodeAt(0));
  window.source = trace ? new modules["source/trace.js"].TraceSource(readTrace()) : newSource();
  source.pace = pace;
  const step = source.step.bind(source);
  source.step = async function* (run, settings) {
    for await (const token of step(run, settings)) {
      yield token;
      if (source.pace) await new Promise((resume) => setTimeout(resume, source.pace));
    }
  };
  if (expected !== null) source.estimate = async () => expected;
  window.selection = newSelection();
  window.chat = modules["views/chat/chat.js"].showChat(
    document.querySelector("#view"), source, selection, options,
  );
}"""


@pytest.fixture
def chat(live_page):
    """chat(**settings) -> the page with a new Chat; settings as in `SHOW`."""

    def show(**settings):
        live_page.evaluate(SHOW, settings)
        return live_page

    yield show
    live_page.evaluate("() => { chat.close(); delete window.chat; }")


def wait_until_idle(page, runs: int) -> None:
    """Until there are so many runs and the chat generates nothing."""
    page.wait_for_function(
        """(runs) => source.runs.length === runs && source.shown
          && !document.querySelector('[aria-busy=true]')""",
        arg=runs,
        timeout=60_000,
    )


def ask(page, question: str = PRODUCT) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    count = page.evaluate("() => source.runs.length")
    page.keyboard.press("Enter")
    wait_until_idle(page, count + 1)


def answers(page) -> list[str]:
    return page.evaluate("() => source.runs.map(({ answer }) => answer)")


def test_enter_asks_at_high_effort_and_the_reply_is_the_labs(chat, lab, encoding) -> None:
    page = chat()
    first = page.locator("textarea, input[type=text]").first
    assert first.get_attribute("aria-label") == "Question"
    ask(page)
    reply = lab.chat(PRODUCT, effort="high")
    data = page.evaluate("() => chat.data()")
    assert (data["question"], data["effort"], data["answer"]) == (PRODUCT, "high", reply.final)
    tokens = {name: count for name, count in data["tokens"].items() if count}
    assert tokens == count_channel_tokens(reply, encoding)
    assert page.locator(ANALYSIS).inner_text() == reply.analysis
    assert page.locator(FINAL).inner_text() == reply.final
    assert page.locator(".oss-spoken[role=status]").inner_text() == f"Answer: {reply.final}"


def test_a_token_is_selected_by_key_and_by_click(chat) -> None:
    page = chat()
    ask(page)
    text = page.locator(ANALYSIS)
    text.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    marked = page.locator(".oss-chat-token")
    at = page.evaluate("() => selection.token")
    page.wait_for_function(
        """() => document.querySelector(".oss-chat-token")?.textContent
          === source.shown.tokens[selection.token].text"""
    )
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(at) => selection.token === at", arg=at + 1)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "(text) => document.querySelector('.oss-chat-token').textContent === text",
        arg=page.evaluate("(at) => source.shown.tokens[at].text", at),
    )
    box = marked.bounding_box()
    page.evaluate("() => selection.set({ token: null })")
    marked.wait_for(state="detached")  # a click on a replaced element is none
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert page.evaluate("() => selection.token") == at


def test_a_mistake_in_the_sampling_is_one_sentence(chat) -> None:
    page = chat()
    page.locator(".oss-chat-settings summary").click()
    page.get_by_label("Temperature").fill("-1")
    page.get_by_label("Question", exact=True).fill(PRODUCT)
    page.keyboard.press("Enter")
    page.locator(".oss-error", has_text="temperature").wait_for()
    assert page.evaluate("() => source.runs.length") == 0


def test_an_empty_question_is_one_sentence(chat) -> None:
    page = chat()
    page.get_by_role("button", name="Ask", exact=True).click()
    error = page.locator(".oss-error")
    assert error.inner_text() == "There is no question: write one and press Enter."
    ask(page)
    assert error.is_hidden()


def test_the_effort_asks_again_but_not_a_draft(chat, lab) -> None:
    page = chat()
    ask(page)
    page.get_by_role("radio", name="low").click()
    wait_until_idle(page, 2)
    assert answers(page)[1] == lab.chat(PRODUCT, effort="low").final
    page.get_by_label("Question", exact=True).fill("What is 1 + 1?")
    page.get_by_role("radio", name="medium").click()
    assert page.evaluate("() => source.runs.length") == 2


def test_everything_by_keyboard(chat) -> None:
    """Ask, pause, step, change the effort, go back, edit, intervene, resume: no pointer."""
    page = chat(pace=10)

    def press_on(name: str, key: str = "Enter", role: str = "button", **options) -> None:
        target = page.get_by_role(role, name=name, **options)
        target.focus()
        assert target.evaluate("(element) => element === document.activeElement")
        page.keyboard.press(key)

    page.get_by_label("Question", exact=True).focus()
    page.keyboard.type(PRODUCT)
    page.keyboard.press("Enter")
    page.wait_for_function("() => source.shown?.tokens.length > source.shown.promptLength + 12")
    press_on("Pause")
    wait_until_idle(page, 1)
    length = page.evaluate("() => source.shown.tokens.length")
    assert page.evaluate("() => source.shown.stop") is None
    press_on("Step one token")
    wait_until_idle(page, 1)
    assert page.evaluate("() => source.shown.tokens.length") == length + 1

    slider = page.get_by_label("Go back to token")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    at = int(slider.input_value())
    assert page.evaluate("() => selection.token") == at
    kept = page.evaluate("(at) => source.shown.tokens.slice(source.shown.promptLength, at + 1)", at)
    content = "".join(token["text"] for token in kept if token["part"] == "content")
    page.wait_for_function(
        "([where, text]) => document.querySelector(where).textContent === text",
        arg=[ANALYSIS, content],
    )

    page.get_by_label("Other text").focus()
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    page.wait_for_function("() => source.runs.length === 2 && source.shown === source.runs[1]")
    page.wait_for_function("(at) => source.shown.tokens.length > at + 4", arg=at)
    press_on("Pause")
    wait_until_idle(page, 2)
    assert page.evaluate("(at) => source.shown.tokens[at].text", at) == "9"
    page.evaluate("() => { source.pace = 0; }")
    press_on("Resume")
    wait_until_idle(page, 2)
    assert page.evaluate("() => source.shown.stop") == "return"

    page.locator(".oss-chat-run-list summary").focus()
    page.keyboard.press("Enter")
    edited = page.get_by_role("button", name=f"run-2: run-1, edited at token {at}")
    assert edited.get_attribute("aria-pressed") == "true"
    press_on("run-1: asked at high effort")
    page.wait_for_function("() => source.shown === source.runs[0]")
    press_on("Resume")
    wait_until_idle(page, 2)
    assert answers(page)[0] == "21514"

    page.locator(".oss-chat-intervene summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Expert", exact=True).fill("27")
    press_on("Ask again with it")
    wait_until_idle(page, 4)
    assert page.evaluate("() => source.runs[2].interventions") == [
        {"kind": "AblateExpert", "layer": 0, "expert": 27}
    ]
    press_on("high", key="ArrowLeft", role="radio")
    wait_until_idle(page, 5)
    assert page.evaluate("() => chat.data().effort") == "medium"


def test_three_efforts_side_by_side(chat, lab) -> None:
    page = chat(question=PRODUCT)
    page.get_by_role("button", name="Compare efforts").click()
    wait_until_idle(page, 3)
    expected = [lab.chat(PRODUCT, effort=effort).final for effort in ("low", "medium", "high")]
    cards = page.locator(".oss-chat-card")
    assert cards.locator(".oss-chat-card-answer").all_inner_texts() == expected
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.set_viewport_size(size)
    page.get_by_role("button", name="Show the reply at low effort").click()
    assert page.evaluate("() => source.shown.request.effort") == "low"
    page.wait_for_function(
        "() => document.querySelector('.oss-chat-card[data-shown] h5').textContent === 'low'"
    )


def test_an_intervention_and_its_null(chat, lab) -> None:
    page = chat()
    ask(page)
    page.evaluate("() => selection.set({ layer: 0, expert: 27 })")
    page.locator(".oss-chat-intervene summary").click()
    page.get_by_role("button", name="Ask again with it").click()
    wait_until_idle(page, 3)
    rows = page.locator(".oss-chat-null tbody tr")
    change, null = page.evaluate("() => source.runs.slice(1).map((run) => run.interventions[0])")
    assert (change["layer"], change["expert"], null["layer"]) == (0, 27, 0)
    assert null["expert"] != 27
    expected = [
        lab.chat(PRODUCT, effort="high", interventions=[AblateExpert(layer=0, expert=expert)]).final
        for expert in (27, null["expert"])
    ]
    found = rows.locator("td:nth-of-type(1)").all_inner_texts()
    assert found == [answers(page)[0], *expected]
    margins = re.findall(r"a logit margin of (\S+?)\.(?:\s|$)", " ".join(rows.all_inner_texts()))
    assert margins
    assert all(float(margin) > 0 for margin in margins)  # greedy: the likeliest token came
    page.get_by_role("button", name="Remove AblateExpert, layer 0, expert 27").click()
    wait_until_idle(page, 4)
    assert answers(page)[3] == answers(page)[0]


def test_an_example_fills_its_setting_and_an_own_question_removes_it(chat, lab) -> None:
    page = chat()
    (example,) = (each for each in GALLERY if each.name == "calculator")
    select = page.get_by_label("Example")
    select.select_option(label=example.name)
    caption = page.locator(".oss-chat-caption")
    assert example.shows in caption.inner_text()
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_until_idle(page, 1)
    assert answers(page) == [example.answer]
    line = page.locator(".oss-chat-call summary").inner_text()
    assert line.startswith(
        f"commentary: call of functions.calculator 4815*884 → {example.answer}, "
    )
    assert line.endswith(" ms")
    calls = page.evaluate("() => chat.data().calls")
    asked: Any = {"effort": example.effort, "tools": example.tools}
    expected = Chat(lab, example.question, **asked).data()["calls"]
    assert all(each.pop("seconds") >= 0 for each in (*calls, *expected))
    assert calls == expected
    ask(page)
    assert select.input_value() == ""
    assert example.shows not in caption.inner_text()
    assert page.evaluate("() => source.runs[1].request.tools") == []


def test_a_call_without_a_known_output_waits_for_one(chat) -> None:
    page = chat()
    page.get_by_label("Example").select_option(label="calculator")
    page.evaluate("() => { source.runTool = () => null; }")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_until_idle(page, 1)
    assert page.evaluate("() => source.shown.stop") == "call"
    page.locator(".oss-chat-calls input").fill("1234")
    page.keyboard.press("Enter")
    page.wait_for_function("() => source.shown.stop === 'return'", timeout=60_000)
    assert "1234" in answers(page)[0]


def test_a_long_reply_waits_for_a_click_and_can_be_canceled(chat) -> None:
    page = chat(expected=240, pace=10)
    page.get_by_label("Question", exact=True).fill(PRODUCT)
    page.keyboard.press("Enter")
    accept = page.get_by_role("button", name="Generate (about 4 min)")
    accept.wait_for()
    assert page.evaluate("() => source.shown.tokens.length === source.shown.promptLength")
    page.keyboard.press("Enter")  # the button has the focus
    page.wait_for_function("() => source.shown.tokens.length > source.shown.promptLength + 3")
    page.get_by_role("button", name="Cancel").click()
    wait_until_idle(page, 1)
    assert page.evaluate("() => source.shown.stop") is None
    assert page.locator(".oss-spoken").inner_text().startswith("Canceled after ")
    assert page.get_by_role("button", name="Resume (about 4 min)").is_visible()


def test_a_trace_is_shown_read_only(chat, lab, tmp_path) -> None:
    """The question, the messages and the slider, but nothing that generates."""
    reply = lab.chat(PRODUCT, effort="medium")
    path = tmp_path / "reply.safetensors"
    lab.trace(reply, ["moe.expert_ids"]).save(path)
    page = chat(trace=base64.b64encode(path.read_bytes()).decode())
    assert page.locator(ANALYSIS).inner_text() == reply.analysis
    assert page.locator(FINAL).inner_text() == reply.final
    assert page.locator(".oss-chat-asked").inner_text() == f"question {PRODUCT}"
    names = page.get_by_role("button").all_inner_texts()
    assert not {"Ask", "Compare efforts", "Replace", "Continue from here", "Resume"} & set(names)
    assert page.get_by_label("Question", exact=True).count() == 0
    slider = page.get_by_label("Go back to token")
    slider.focus()
    page.keyboard.press("Home")
    page.locator(FINAL).wait_for(state="hidden")


def test_a_trace_of_a_prompt_has_no_reply(chat, lab, tmp_path) -> None:
    path = tmp_path / "prompt.safetensors"
    reply = lab.chat(PRODUCT, effort="low")
    lab.trace(reply.prompt_tokens, ["moe.expert_ids"]).save(path)
    page = chat(trace=base64.b64encode(path.read_bytes()).decode())
    assert page.locator(".oss-chat-facts").inner_text() == "trace-1: no reply."


def test_the_code_is_shown_if_the_clipboard_is_refused(chat) -> None:
    page = chat()
    ask(page)
    page.evaluate("() => { source.toPython = async (run) => `lab.chat(${run.request.effort})`; }")
    page.evaluate(
        "() => { navigator.clipboard.writeText = async () => { throw new DOMException('no'); }; }"
    )
    page.get_by_role("button", name="Copy Python").click()
    code = page.get_by_label("Python", exact=True)
    code.wait_for()
    assert code.input_value() == "lab.chat(high)"


def test_tokens_are_found_in_the_text(live_page) -> None:
    """Also where a character is split over tokens; an empty message has none."""
    spans = live_page.evaluate(
        r"""() => {
          const token = (text, part = "content") => ({ text, part });
          const tokens = [
            token("<|channel|>", "format"), token("a"), token("\\xf0\\x9f"), token("\\x98\\x80"),
            token(" مرحبا"), token("<|end|>", "format"), token("<img onerror=x>"),
          ];
          const messages = [{ text: "a😀 مرحبا" }, { text: "" }, { text: "<img onerror=x>" }];
          return modules["views/chat/align.js"].alignMessages(messages, tokens, 0);
        }"""
    )
    assert [[(span["token"], span["start"], span["end"]) for span in each] for each in spans] == [
        [(1, 0, 1), (2, 1, 3), (3, 1, 3), (4, 3, 9)],
        [],
        [(6, 0, 15)],
    ]


def test_a_long_reply_stays_small(chat) -> None:
    """8,000 tokens are few elements, and a token of them is selected within a frame or two."""
    page = chat()
    found = page.evaluate(
        r"""async () => {
          const own = { role: "assistant", channel: "analysis" };
          const label = { ...own, id: 5, message: 0, part: "content", logprob: -0.5 };
          const tokens = Array.from({ length: 8000 }, (_, n) => (
            { ...label, text: n % 9 ? " word" : "\n<b>", alternatives: [] }));
          const text = tokens.slice(100).map((token) => token.text).join("");
          const run = {
            id: "run-1", tokens, promptLength: 100, request: null, interventions: [],
            parent: null, stop: "return", diagnostics: [], openCalls: [], answer: "", seconds: 1,
            calls: [], note: null,
            messages: [{ ...own, recipient: null, text, isOpen: false }],
          };
          source.runs.push(run);
          source.show(run);
          const frame = () => new Promise((resume) => {
            requestAnimationFrame(() => setTimeout(resume));
          });
          await frame();
          const started = performance.now();
          for (const token of [7000, 200, 5000]) {
            selection.set({ token });
            await frame();
          }
          return {
            each: (performance.now() - started) / 3,
            elements: document.querySelectorAll("#view *").length,
            marked: document.querySelector(".oss-chat-token").textContent,
            bold: document.querySelector("#view b"),
          };
        }"""
    )
    assert found["elements"] < 200
    assert found["each"] < 500
    assert found["marked"] == " word"
    assert found["bold"] is None
