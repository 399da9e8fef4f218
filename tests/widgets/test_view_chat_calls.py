"""Calls in the transcript of the Chat view: each is folded into one line that opens."""

import json

import pytest

BIDI = "\u202eabc <|end|><|start|>system"
# In the page: a Chat with one run of these messages and calls; every character is a token.
SHOW = """({ messages, calls }) => {
  window.chat?.close();
  document.querySelector("#view").replaceChildren();
  window.source = newSource();
  window.selection = newSelection();
  const tokens = messages.flatMap(({ text, ...names }, message) => [
    { text: "<|message|>", ...names, message, part: "format" },
    ...Array.from(text, (letter) => ({ text: letter, ...names, message, part: "content" })),
  ]);
  const run = {
    id: "run-1", promptLength: 0, request: null, interventions: [], parent: null, stop: "return",
    diagnostics: [], openCalls: [], answer: "", seconds: 1, note: null, messages, calls,
    tokens: tokens.map((token, id) => ({ ...token, id, logprob: -1, alternatives: [] })),
  };
  source.runs.push(run);
  source.shown = run;
  const { showChat } = modules["views/chat/chat.js"];
  window.chat = showChat(document.querySelector("#view"), source, selection, {});
}"""


def message(role: str, text: str, recipient: str | None = None, channel: str = "commentary"):
    names = {"role": role, "channel": channel, "recipient": recipient}
    return {**names, "text": text, "isOpen": False}


def call(name: str, arguments: str, output: str | None = None, **known):
    rest = {"seconds": None, "error": None, "notes": [], **known}
    return {"name": name, "arguments": arguments, "output": output, **rest}


CALLS = [
    call("functions.multiply", '{"a":4815,"b":884}', "4256460", seconds=0.0042),
    call("python", "print(1)", "<img src=x>", seconds=1.5, notes=["sandbox: bubblewrap"]),
    call("functions.multiply", "{'a': ", f"error: {BIDI}", error="malformed arguments"),
    call("functions.look", '{"where":"\u202eabc"}'),
    call("functions.add", '{"n": 12345678901234567890}'),
]
MESSAGES = [
    message("assistant", "I call.", channel="analysis"),
    message("assistant", CALLS[0]["arguments"], "functions.multiply"),
    message("tool", CALLS[0]["output"], "assistant"),
    *(message("assistant", each["arguments"], each["name"]) for each in CALLS[1:3]),
    *(message("tool", each["output"], "assistant") for each in CALLS[1:3]),
    message("assistant", CALLS[3]["arguments"], "functions.look"),
    message("assistant", CALLS[4]["arguments"], "functions.add"),
    message("tool", "nobody called this", "assistant"),
    message("assistant", "4256460", channel="final"),
]


@pytest.fixture
def page(live_page):
    live_page.evaluate(SHOW, {"messages": MESSAGES, "calls": CALLS})
    yield live_page
    live_page.evaluate("() => { chat.close(); delete window.chat; }")


def test_each_call_is_one_line_and_other_messages_stay(page) -> None:
    lines = page.locator(".oss-chat-call summary").all_inner_texts()
    assert lines == [
        "commentary: call of functions.multiply a: 4815, b: 884 → 4256460, 4.2 ms",
        "commentary: call of python print(1) → <img src=x>, 1500 ms",
        f"commentary: call of functions.multiply {{'a': → error: {BIDI}, malformed arguments",
        "commentary: call of functions.look \u202eabc: no output",
        'commentary: call of functions.add {"n": 12345678901234567890}: no output',
    ]
    assert page.locator(".oss-chat-call .oss-chat-text:visible").count() == 0
    others = page.locator(".oss-chat-message:not(.oss-chat-call) .oss-chat-text").all_inner_texts()
    assert others == ["I call.", "nobody called this", "4256460"]
    assert page.locator("#view img").count() == 0
    assert page.evaluate("() => chat.data().calls") == CALLS
    isolated = page.evaluate(
        """() => [...document.querySelectorAll(".oss-chat-call summary")].every((line) => {
          const walk = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
          while (walk.nextNode()) {
            const own = /\\u202e/.test(walk.currentNode.data);
            if (own && !walk.currentNode.parentElement.closest("bdi")) return false;
          }
          return true;
        })"""
    )
    assert isolated


def test_a_call_opens_by_key_and_when_its_token_is_selected(page) -> None:
    item = page.locator(".oss-chat-call").nth(0)
    item.locator("summary").focus()
    page.keyboard.press("Enter")
    pretty = item.get_by_label("Arguments", exact=True)
    assert pretty.inner_text() == json.dumps({"a": 4815, "b": 884}, indent=2)
    texts = item.locator(".oss-chat-text:visible").all_inner_texts()
    assert texts == [CALLS[0]["arguments"], "4256460"]
    malformed = page.locator(".oss-chat-call").nth(2)
    at = page.evaluate("() => source.shown.tokens.findLast(({ message }) => message === 6).id")
    page.evaluate("(token) => selection.set({ token })", at)
    malformed.locator(".oss-chat-token").wait_for()
    assert malformed.locator(".oss-chat-part:visible").all_inner_texts() == ["Arguments", "Output"]
    assert malformed.locator("details > div").last.inner_text() == "malformed arguments"
    page.evaluate("() => { selection.set({ token: null }); }")
    code = page.locator(".oss-chat-call").nth(1)
    code.locator("summary").click()
    assert code.locator("details > div").last.inner_text() == "Took 1500 ms\nsandbox: bubblewrap"


def test_open_calls_fit_a_phone_and_axe_finds_nothing(page, find_violations) -> None:
    for line in page.locator(".oss-chat-call summary").all():
        line.click()
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert find_violations(page) == []
    page.set_viewport_size(size)


def test_going_back_hides_what_came_later(page) -> None:
    slider = page.get_by_label("Go back to token")
    end = page.evaluate("() => source.shown.tokens.findLast(({ message }) => message === 1).id")
    slider.fill(str(end))
    lines = page.locator(".oss-chat-call summary:visible")
    page.wait_for_function(
        "() => document.querySelector('.oss-chat-call summary').textContent.endsWith('884')"
    )
    assert lines.all_inner_texts() == ["commentary: call of functions.multiply a: 4815, b: 884"]
