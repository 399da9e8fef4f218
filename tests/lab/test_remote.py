"""`oss_lab.connect` against a server that plays back what engines send."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed (extra `connect`)")

from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Delta, End, Message, Start
from oss_lab.harmony.openai_messages import convert_messages
from oss_lab.record.calls import append_outputs
from oss_lab.server.remote import connect
from oss_lab.server.remote.messages import to_api


class FakeEngine(ThreadingHTTPServer):
    """Answers each question with the next list of chunks, and keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.models, self.status, self.token = ["gpt-oss"], 200, ""
        self.replies: list[list[dict[str, Any]]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Answer(BaseHTTPRequestHandler):
    server: FakeEngine  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.headers.append(self.headers)
        if self.server.token not in self.headers["Authorization"]:
            return self.send(401, {"error": {"message": "no"}})
        models = [{"id": name, "object": "model"} for name in self.server.models]
        return self.send(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        self.server.headers.append(self.headers)
        if self.server.status != 200:
            return self.send(self.server.status, {"error": {"message": "too\nlong a prompt"}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in self.server.replies.pop(0):
            self.wfile.write(to_line(chunk))
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def send(self, status: int, value: Any) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


def to_line(chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def chunk(finish: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]}  # fmt: skip


def call(name: str | None, arguments: Any, index: Any = 0, id: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    server = FakeEngine()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_channels_and_events(engine, name: str) -> None:
    engine.replies = [[chunk(role="assistant"), chunk(**{name: "3 * 4"}), chunk(**{name: " = 12"}),
                       chunk(content="1"), chunk(content="2"), chunk("stop"),
                       chunk() | {"choices": [], "usage": {"prompt_tokens": 60, "total_tokens": 69,
                                                           "completion_tokens": 9}}]]  # fmt: skip
    stream = connect(engine.url).stream("What is 3 * 4?", effort="low", seed=3, top_k=5)
    kinds = [type(event) for event in stream]
    assert kinds == [Start, Delta, Delta, End, Start, Delta, Delta, End]
    reply = stream.reply
    assert (reply.analysis, reply.final, reply.stop) == ("3 * 4 = 12", "12", "return")
    assert (reply.engine, reply.timing.tokens) == (engine.url, 9)
    assert reply.tokens == ()
    sent = engine.requests[0]
    assert (sent["reasoning_effort"], sent["seed"], sent["top_k"]) == ("low", 3, 5)
    assert "temperature" not in sent
    assert sent["messages"] == [{"role": "user", "content": "What is 3 * 4?"}]


@pytest.mark.parametrize(
    "part",
    [5, [], {"choices": [None]}, {"choices": 3}, chunk(content=5), chunk(content=["a"]),
     chunk(content="\ud800"), chunk(reasoning={"a": 1}), chunk(tool_calls=[None]),
     chunk(tool_calls=[call("f", "{}", index="a")]), chunk(tool_calls=[call("f", {"x": 1})]),
     chunk(finish=["stop"]), chunk() | {"usage": {"completion_tokens": "9"}}],
)  # fmt: skip
def test_a_part_of_another_shape_is_one_sentence(engine, part: Any) -> None:
    engine.replies = [[part, chunk("stop")]]
    with pytest.raises(LabError, match=r"sent a part of the reply that is not in the format"):
        connect(engine.url).chat("hi")


@pytest.mark.parametrize(
    "part", [b'{"choices": [{"delta": {"content": "\xff"}}]}', b"[" * 100_000, b"{no"]
)
def test_a_part_that_is_not_json_is_one_sentence(engine, part: bytes, monkeypatch) -> None:
    engine.replies = [["HERE"]]
    monkeypatch.setattr(f"{__name__}.to_line", lambda chunk: b"data: " + part + b"\n\n")
    with pytest.raises(LabError, match="does not answer like OpenAI's chat completions"):
        connect(engine.url).chat("hi")


def test_parts_of_a_choice_that_was_not_requested_are_left_out(engine) -> None:
    other = {"index": 1, "delta": {"content": "B"}, "finish_reason": "length"}
    engine.replies = [[chunk(content="a"), chunk() | {"choices": [other]}, chunk("stop")]]
    reply = connect(engine.url).chat("hi")
    assert (reply.final, reply.stop) == ("a", "return")


def test_names_of_models_that_are_not_names(engine) -> None:
    for name in (5, ["a"], "\ud800"):
        engine.models = [name]
        with pytest.raises(LabError, match="does not answer like OpenAI's chat completions"):
            connect(engine.url)
    engine.models = ["x" * 500] * 9
    with pytest.raises(LabError, match="which model") as found:
        connect(engine.url)
    assert len(str(found.value)) < 400


def test_an_address_that_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(LabError, match=r"'http://\[::1' is not an address"):
        connect("http://[::1")


def test_what_the_environment_has_for_openai_is_not_sent(engine, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "private")
    monkeypatch.setenv("OPENAI_ORG_ID", "private")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "private")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Other: private\nAuthorization: Bearer private")
    engine.replies = [[chunk("stop", content="a")]]
    connect(engine.url, token="mine").chat("hi")
    assert len(engine.headers) == 2
    for headers in engine.headers:
        assert headers["Authorization"] == "Bearer mine"
        assert "private" not in str(headers)


def test_a_question_that_json_cannot_write_is_refused(engine) -> None:
    with pytest.raises(LabError, match="cannot be written as JSON"):
        connect(engine.url).chat("\udcff")


def test_calls_and_their_outputs(engine) -> None:
    engine.replies = [
        [chunk(reasoning="Add."), chunk(content="Two sums."),
         chunk(tool_calls=[call("add", "", id="a")]), chunk(tool_calls=[call(None, '{"a": 1')]),
         chunk(tool_calls=[call(None, "}")]), chunk(tool_calls=[call("add", "{}", 1, "b")]),
         chunk("tool_calls")],
        [chunk(content="done"), chunk("stop")],
    ]  # fmt: skip

    def add(a: int) -> int:
        return a

    model = connect(engine.url)
    stream = model.stream("Add.", tools=[add])
    ends = [event.message for event in stream if isinstance(event, End)]
    reply = stream.reply
    assert [each.text for each in ends] == ["Add.", "Two sums.", '{"a": 1}', "{}"]
    assert reply.stop == "call"
    assert reply.commentary == "Two sums."
    assert reply.final == ""
    assert [(c.name, c.arguments) for c in reply.open_calls] == [
        ("functions.add", '{"a": 1}'), ("functions.add", "{}"),
    ]  # fmt: skip
    conversation = append_outputs(reply, lambda call: f"output of {call.arguments}")
    assert conversation is not None
    assert model.chat(conversation).final == "done"
    turn, first, second = engine.requests[1]["messages"][1:]
    assert turn["reasoning_content"] == turn["reasoning"] == "Add."
    assert turn["content"] == "Two sums."
    ids = [each["id"] for each in turn["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert first["content"] == 'output of {"a": 1}'
    assert engine.requests[1]["tools"][0]["function"]["name"] == "add"


def test_the_reasoning_of_a_finished_turn_is_not_sent() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "reasoning_content": "easy", "content": "2"},
        {"role": "user", "content": "And 2 + 2?"},
    ]
    sent = to_api(convert_messages(messages, effort="high"))
    assert sent == {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "And 2 + 2?"},
        ],
        "reasoning_effort": "high",
    }


def test_a_conversation_survives_the_journey() -> None:
    """To the API and back: the same messages, with the reasoning of the open turn."""
    start = [{"role": "user", "content": "Add 1 and 2, then 3 and 4."}]
    first = convert_messages(start, effort="low")
    turn = (
        Message.of("assistant", "two sums", channel="analysis"),
        *(
            Message.of("assistant", arguments, channel="commentary", recipient="functions.add",
                       content_type="<|constrain|>json")
            for arguments in ('{"a": 1}', '{"a": 3}')
        ),
        *(
            Message.of("tool", text, name="functions.add", channel="commentary",
                       recipient="assistant")
            for text in ("3", "7")
        ),
    )  # fmt: skip
    conversation = Conversation((*first.messages, *turn))
    sent = to_api(conversation)["messages"]
    for message in sent:
        message.pop("reasoning", None)
    assert convert_messages(sent, effort="low") == conversation


@pytest.mark.parametrize(
    ("finish", "stop"), [("length", "length"), ("stop", "return"), ("content_filter", "return")]
)
def test_why_it_stopped(engine, finish: str, stop: str) -> None:
    engine.replies = [[chunk(content="12"), chunk(finish)]]
    reply = connect(engine.url).chat("What is 3 * 4?", max_tokens=2)
    assert (reply.stop, reply.unfinished) == (stop, stop == "length")
    assert engine.requests[0]["max_tokens"] == 2


def test_what_goes_wrong_is_one_sentence(engine) -> None:
    model = connect(engine.url)
    engine.replies = [[chunk(content="1")]]
    with pytest.raises(LabError, match="the reply broke off"):
        model.chat("What is 3 * 4?")
    engine.status = 400
    with pytest.raises(LabError, match=r"answered 400: .*too long a prompt"):
        model.chat("What is 3 * 4?")
    for options, sentence in (
        ({"points": ["embed"]}, "points has no effect on another engine"),
        ({"efort": "low"}, "did you mean 'effort'"),
        ({"date": "2026-12-01"}, "the engine writes the system message itself"),
        ({"sampling": 3}, "expected a Sampling"),
    ):
        with pytest.raises(LabError, match=sentence):
            model.chat("What is 3 * 4?", **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(LabError, match="shows only text, nothing from inside the model"):
        model.trace("What is 3 * 4?")
    assert len(engine.requests) == 2


def test_who_answers(engine) -> None:
    engine.models = ["a", "b"]
    with pytest.raises(LabError, match=r"which model\? choose one of a, b"):
        connect(engine.url)
    assert connect(engine.url, model="b").model == "b"
    with pytest.raises(LabError, match="there is no model 'c'; choose one of a, b"):
        connect(engine.url, model="c")
    engine.token = "secret"
    with pytest.raises(LabError, match="the token is missing or wrong; give `token=`"):
        connect(engine.url, token="guess")
    assert connect(engine.url, model="a", token="secret").model == "a"
    with pytest.raises(LabError, match="is not an address"):
        connect("localhost:8080")
    with pytest.raises(LabError, match="does not answer"):
        connect("http://127.0.0.1:9/v1")


def test_a_reader_who_leaves_ends_the_request(engine) -> None:
    engine.replies = [[chunk(content=str(n)) for n in range(50)] + [chunk("stop")]]
    events = iter(connect(engine.url).stream("Count."))
    next(events)
    events.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_sampling_as_one_object(engine) -> None:
    engine.replies = [[chunk(content="12"), chunk("stop")]]
    connect(engine.url).chat("What is 3 * 4?", sampling=Sampling(0.5, seed=1), temperature=0.25)
    sent = engine.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"]) == (0.25, 1.0, 1)
