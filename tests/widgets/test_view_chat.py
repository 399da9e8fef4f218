"""The Chat view with nano in the page: asked, stopped, changed and compared by keyboard and click."""

import pytest

from oss_lab.record.token_labels import count_channel_tokens

PRODUCT = "What is 347 * 62?"

# In the page: a Chat with its own source.
SHOW = """(options) => {
  window.chat?.close();
  document.querySelector("#view").replaceChildren();
  window.source = newSource();
  source.estimate ??= async () => 0;
  source.toPython ??= async (run) => `lab.chat(${JSON.stringify(run.request.question)})`;
  window.selection = newSelection();
  const { showChat } = modules["views/chat/chat.js"];
  window.chat = showChat(document.querySelector("#view"), source, selection, options);
}"""


@pytest.fixture
def chat(live_page):
    """chat(options) -> the page with a new Chat."""

    def show(**options):
        live_page.evaluate(SHOW, options)
        return live_page

    yield show
    live_page.evaluate("() => { chat.close(); delete window.chat; }")


def wait_for_end(page, runs: int = 1) -> None:
    page.wait_for_function(
        "(runs) => source.runs.length === runs && source.shown?.stop && !source.shown.isBusy"
        " && document.querySelector('.oss-chat [role=status].oss-spoken').textContent",
        arg=runs,
        timeout=60_000,
    )


def ask(page, question: str = PRODUCT) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")
    page.wait_for_function("() => source.shown?.stop", timeout=60_000)


def test_enter_asks_at_high_effort_and_the_reply_is_the_labs(chat, lab, encoding) -> None:
    page = chat()
    ask(page)
    reply = lab.chat(PRODUCT, effort="high")
    data = page.evaluate("() => chat.data()")
    assert (data["question"], data["effort"], data["answer"]) == (PRODUCT, "high", reply.final)
    assert {name: n for name, n in data["tokens"].items() if n} == count_channel_tokens(
        reply, encoding
    )
    final = page.locator(".oss-chat-message[data-channel=final] .oss-chat-text")
    assert final.inner_text() == reply.final
