"""The Chat view of another engine: its text by channel, its tools, and its errors."""

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from oss_widgets import Chat, Experts, Tokens

openai = pytest.importorskip("openai", reason="openai is not installed (extra `connect`)")

from oss_lab.agents import Budget, Python  # noqa: E402
from oss_lab.errors import LabError  # noqa: E402
from oss_lab.server.remote import Connection  # noqa: E402

URL = "http://127.0.0.1:1/v1"
QUESTION = "What is 6 * 7?"
make_chat: Any = Chat  # without its types, which forbid some calls


def multiply(a: int, b: int) -> int:
    "Multiply two numbers."
    return a * b


def chunk(finish: str | None = None, call: tuple[str, str] | None = None, **delta: str) -> Any:
    """A chunk of a stream, as the package openai has it."""
    calls = None
    if call is not None:
        function = SimpleNamespace(name=call[0], arguments=call[1])
        calls = [SimpleNamespace(index=0, function=function)]
    extra = {"reasoning": delta.pop("reasoning", None)}
    choice = SimpleNamespace(
        index=0,
        finish_reason=finish,
        delta=SimpleNamespace(content=delta.get("content"), tool_calls=calls, model_extra=extra),
    )
    return SimpleNamespace(choices=[choice], usage=None)


ANSWER = [chunk(reasoning="6 * 7 = 42"), chunk(content="4"), chunk("stop", content="2")]
CALL = [
    chunk(content="I call."),
    chunk(call=("multiply", '{"a": 6,')),
    chunk("tool_calls", call=("", ' "b": 7}')),
]


class Engine:
    """A client of the package openai that plays back lists of chunks."""

    def __init__(self, *replies: list[Any]) -> None:
        self.replies, self.requests = list(replies), list[dict[str, Any]]()
        self.goes_on, self.is_closed = threading.Event(), threading.Event()
        self.goes_on.set()
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **fields: Any) -> Iterator[Any]:
        self.requests.append(fields)
        return self.play(self.replies.pop(0))

    def play(self, chunks: list[Any]) -> Iterator[Any]:
        try:
            for n, each in enumerate(chunks):
                if n == 1:
                    assert self.goes_on.wait(30)
                yield each
        finally:
            self.is_closed.set()

    @property
    def connection(self) -> Connection:
        return Connection(self, URL, "gpt-oss:20b")


def ask(engine: Engine, **settings: Any) -> Chat:
    return make_chat(engine.connection, QUESTION, **settings)


def test_a_reply_is_shown_by_channel_and_has_the_settings_of_the_request():
    engine = Engine(ANSWER, ANSWER)
    settings: Any = {"instructions": "Be brief.", "history": [["1 + 1?", "2"]], "maxTokens": 9}
    chat = ask(engine, effort="low", sampling={"temperature": 0.5, "topK": 3}, **settings)
    assert (chat.reply.analysis, chat.reply.final) == ("6 * 7 = 42", "42")
    data = chat.data()
    assert (data["answer"], data["effort"], data["stop"]) == ("42", "low", "return")
    assert [each["channel"] for each in data["messages"]] == ["analysis", "final"]
    sent = engine.requests[0]
    assert [each["content"] for each in sent["messages"]] == ["Be brief.", "1 + 1?", "2", QUESTION]
    assert (sent["reasoning_effort"], sent["temperature"], sent["max_tokens"]) == ("low", 0.5, 9)
    assert sent["extra_body"] == {"top_k": 3}
    chat.effort = "high"
    assert chat.reply.final == "42"
    assert engine.requests[1]["reasoning_effort"] == "high"
    assert len(chat.source.runs) == 2
    assert "6 * 7 = 42" in chat._repr_mimebundle_()["text/html"]


def test_a_function_is_run_and_its_output_is_sent():
    engine = Engine(CALL, ANSWER)
    chat = ask(engine, tools=[multiply])
    (call,) = chat.data()["calls"]
    assert call.pop("seconds") > 0
    assert call == {
        "name": "functions.multiply", "arguments": '{"a": 6, "b": 7}', "output": "42",
        "error": None, "notes": [],
    }  # fmt: skip
    channels = [each["channel"] for each in chat.data()["messages"]]
    assert channels == ["commentary", "commentary", "commentary", "analysis", "final"]
    assert engine.requests[0]["tools"][0]["function"]["name"] == "multiply"
    assert engine.requests[1]["messages"][-1]["content"] == "42"
    limited = ask(Engine(CALL), tools=[multiply], budget=Budget(calls=0))
    assert limited.data()["note"] == "The budget of 0 calls is used up."
    assert limited.data()["stop"] == "call"


def test_a_cancel_is_heard_while_the_engine_is_silent():
    engine = Engine(ANSWER, ANSWER)
    engine.goes_on.clear()
    chat = ask(engine)
    assert chat._job is not None
    while not chat.source.runs or not chat.source.runs[0].list_messages():
        assert not chat._job.done.done()
    chat._job.canceled.set()
    chat.wait(10)
    (message,) = chat.data()["messages"]
    assert (message["text"], message["isOpen"], chat.data()["stop"]) == ("6 * 7 = 42", True, None)
    assert not engine.is_closed.is_set()
    engine.goes_on.set()  # the connection is closed at its next sign of life
    assert engine.is_closed.wait(10)
    with pytest.raises(LabError, match="has not finished a reply"):
        _ = chat.reply
    request = {"run": chat.run.id}
    with pytest.raises(LabError, match="cannot continue a reply; ask again"):
        chat.source.call(chat.source.methods["step"](request, "", threading.Event()))


def test_an_error_of_the_engine_is_one_sentence_and_the_view_stays_usable():
    engine = Engine(ANSWER[:2], ANSWER)
    chat = ask(engine)
    sentence = f"{URL}: the reply broke off; ask again"
    with pytest.raises(LabError, match=sentence):
        chat.wait()
    assert chat.source.shown.note == f"Error: {sentence}."
    assert sentence in json.dumps(chat.stored)
    assert sentence in chat._repr_mimebundle_()["text/plain"]
    chat.question = "Again?"
    assert chat.reply.final == "42"
    client = openai.OpenAI(base_url=URL, api_key="none", max_retries=0)
    with pytest.raises(LabError, match="is the server running"):
        make_chat(Connection(client, URL, "x"), QUESTION).wait()


def test_a_tool_that_breaks_the_second_reply_leaves_the_first():
    chat = ask(Engine(CALL, ANSWER[:1]), tools=[multiply])
    with pytest.raises(LabError, match="the reply broke off"):
        chat.wait()
    state = chat.stored["runs"][0]
    assert [each["output"] for each in state["calls"]] == ["42"]
    assert state["messages"][-1]["text"] == "6 * 7 = 42"


def test_the_python_of_a_run_names_the_engine():
    chat = ask(Engine(ANSWER), sampling={"seed": 3}, effort="low", tools=[multiply])
    chat.wait()
    code = chat.source.call(
        chat.source.methods["toPython"]({"run": "run-1"}, "", threading.Event())
    )
    compile(code, "code", "exec")
    assert f"oss_lab.connect('{URL}', model='gpt-oss:20b')" in code
    assert "Agent(model, [multiply], effort='low', seed=3)" in code


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda e: Experts(e.connection), "Experts needs the inside of a model; this engine"),
        (lambda e: Tokens(ask(e)), "Tokens needs the inside of a model; this engine"),
        (lambda e: ask(e, interventions=[{"kind": "x"}]), "an intervention needs the inside"),
        (lambda e: ask(e, tools=[{"name": "look"}]), "tools: give functions; nobody can answer"),
        (lambda e: ask(e, tools=[Python()]), "takes only functions, not the toolbox 'python'"),
        (lambda e: make_chat(e.connection, " "), "there is no question"),
    ],
)
def test_what_needs_the_inside_is_one_sentence(make, sentence):
    with pytest.raises(LabError, match=sentence):
        make(Engine(ANSWER))


SHOW = """(stored) => {
  const model = { get: () => stored, on() {}, off() {}, send() {} };
  const source = new modules["source/kernel.js"].KernelSource(model);
  window.chat?.close();
  document.querySelector("#view").replaceChildren();
  const { showChat } = modules["views/chat/chat.js"];
  window.chat = showChat(document.querySelector("#view"), source, newSelection(), {});
}"""


def test_the_view_says_that_it_has_only_text(live_page, find_violations):
    chat = ask(Engine(CALL, ANSWER), tools=[multiply])
    chat.wait()
    page = live_page
    page.evaluate(SHOW, chat.stored)
    facts = page.locator(".oss-chat-facts").first.inner_text()
    assert facts.startswith("run-1: finished, ")
    assert facts.endswith("s. This engine shows only text, nothing from inside the model.")
    assert page.get_by_text("gpt-oss:20b at").inner_text() == f"gpt-oss:20b at {URL}"
    for name in ("Resume", "Step one token", "Continue from here"):
        assert page.get_by_role("button", name=name).count() == 0
    assert page.get_by_role("button", name="Cancel").count() == 1
    page.locator(".oss-chat-settings summary").click()
    page.get_by_text(
        "Python runs these tools if the model calls them: functions.multiply."
    ).wait_for()
    line = page.locator(".oss-chat-call summary")
    assert line.inner_text().startswith("commentary: call of functions.multiply a: 6, b: 7 → 42, ")
    texts = page.locator(".oss-chat-text:visible").all_inner_texts()
    assert texts == ["I call.", "6 * 7 = 42", "42"]
    assert page.locator("details", has_text="Prompt,").is_hidden()
    assert find_violations(page) == []
    page.evaluate("() => { chat.close(); delete window.chat; }")
