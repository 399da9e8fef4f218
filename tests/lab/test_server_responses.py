"""/v1/responses with the real `openai` client, unmodified: items, events and what they continue."""

import json
import time
from dataclasses import asdict

import pytest

from oss_lab.nano.tasks.settings import CALCULATOR_TOOL, LOOK_UP_TOOL
from oss_lab.record.builder import ReplyBuilder
from oss_lab.server.settings import Limits

openai = pytest.importorskip("openai", reason="the extra `test` is not installed")

PRODUCT = "What is 3 * 4?"
HARD = "What is 4815 * 884?"
LONG = "What is 347 * 628?"
CALCULATOR = {"type": "function", **asdict(CALCULATOR_TOOL)}


@pytest.fixture(scope="module")
def url(serve):
    with serve() as found:
        yield found


def connect(url):
    return openai.OpenAI(base_url=url, api_key="secret", max_retries=0)


@pytest.fixture(scope="module")
def client(url):
    with connect(url) as found:
        yield found


@pytest.fixture(scope="module")
def ask(client):
    """`ask(input, **options)`: a response."""
    return lambda given, **options: client.responses.create(model="nano", input=given, **options)


def test_a_response_has_reasoning_and_an_answer(ask, nano):
    found, reply = ask(PRODUCT), nano.chat(PRODUCT)
    reasoning, message = found.output
    assert (found.status, found.output_text) == ("completed", reply.final)
    assert [part.text for part in reasoning.content] == [reply.analysis]
    assert (reasoning.type, message.phase, message.status) == (
        "reasoning", "final_answer", "completed",
    )  # fmt: skip
    assert found.usage.input_tokens == len(reply.prompt_tokens)
    assert found.usage.output_tokens == len(reply.tokens)


def test_the_events_of_a_stream_are_parsed_in_order(ask, nano):
    """Every delta lies between `added` and `done` of its item, and counts from content 0."""
    reply, found = nano.chat(PRODUCT), list(ask(PRODUCT, stream=True))
    names = [event.type for event in found]
    assert all(type(event).__name__.startswith("Response") for event in found)
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == "response.completed"
    item = ["response.output_item.added", "response.content_part.added"]
    end = ["response.content_part.done", "response.output_item.done"]
    without_deltas = [name for name in names[2:-1] if not name.endswith(".delta")]
    assert without_deltas == [
        *item, "response.reasoning_text.done", *end, *item, "response.output_text.done", *end,
    ]  # fmt: skip
    deltas = {
        name: "".join(event.delta for event in found if event.type == f"response.{name}.delta")
        for name in ("reasoning_text", "output_text")
    }
    assert deltas == {"reasoning_text": reply.analysis, "output_text": reply.final}
    indices = {event.content_index for event in found if hasattr(event, "content_index")}
    assert indices == {0}
    assert found[-1].response.output_text == reply.final


def test_the_other_names_of_reasoning_events_are_sent_on_request(client):
    stream = client.responses.create(
        model="nano",
        input="What is 3 * 4?",
        stream=True,
        extra_headers={"x-oss-lab-events": "openresponses"},
    )
    names = {event.type for event in stream}
    assert {"response.reasoning.delta", "response.reasoning.done"} < names
    assert "response.reasoning_text.delta" not in names


def test_the_calculator_solves_what_the_model_alone_cannot(ask, client):
    """The second request names the first one, which has the call and the chain of thought."""
    assert "too hard" in ask(HARD).output_text
    with client.responses.stream(model="nano", input=HARD, tools=[CALCULATOR]) as stream:
        names = [event.type for event in stream]
        first = stream.get_final_response()
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert names[-4:] == [
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert json.loads(call.arguments) == {"expression": "4815*884"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "4256460"}
    second = ask([output], tools=[CALCULATOR], previous_response_id=first.id)
    assert second.output_text == "4256460"
    again = ask(
        [{"role": "user", "content": HARD}, *[each.model_dump() for each in first.output], output],
        tools=[CALCULATOR],
    )
    assert again.output_text == "4256460"  # the client may send all items itself
    assert again.usage.input_tokens == second.usage.input_tokens


def test_a_required_call_comes(ask):
    found = ask("What is 3 * 4?", tools=[CALCULATOR], tool_choice="required")
    assert found.output[-1].type == "function_call"
    assert found.status == "completed"


def test_phases_are_channels(nano, serve, ask):
    """The prompt of a history with phases is that of the same Harmony messages."""
    history = [
        {"role": "user", "content": "What is 3 * 4?"},
        {"role": "assistant", "phase": "commentary", "content": "I calculate."},
        {"role": "assistant", "phase": "final_answer", "content": "12"},
        {"role": "user", "content": "And what is 4 * 5?"},
    ]
    expected = nano.conversation(history)
    channels = [message.channel for message in expected if message.role == "assistant"]
    assert channels == ["commentary", "final"]
    assert ask(history).usage.input_tokens == len(nano.render(expected)[0])


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_cut_is_incomplete(ask, stream):
    found = ask(PRODUCT, max_output_tokens=16, stream=stream)
    if stream:
        events = list(found)
        assert events[-1].type == "response.incomplete"
        found = events[-1].response
    assert found.status == "incomplete"
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.output[-1].status == "incomplete"
    assert found.usage.output_tokens == 16


def test_an_answer_follows_its_schema(client):
    """`parse` sends the schema of a pydantic class, and reads the answer with it."""
    pydantic = pytest.importorskip("pydantic")

    class Result(pydantic.BaseModel):
        is_even: bool

    found = client.responses.parse(
        model="nano", input=PRODUCT, text_format=Result, reasoning={"effort": "low"}
    )
    assert isinstance(found.output_parsed, Result)
    assert found.text.format.type == "json_schema"


def test_logprobs_are_included_on_request(ask):
    include = ["message.output_text.logprobs"]
    found = ask(PRODUCT, include=include, top_logprobs=2)
    logprobs = found.output[-1].content[0].logprobs
    assert "".join(each.token for each in logprobs) == "12"
    assert {len(each.top_logprobs) for each in logprobs} == {2}
    events = ask(PRODUCT, include=include, stream=True)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [each.token for event in deltas for each in event.logprobs] == ["1", "2"]


def test_responses_are_read_listed_and_deleted(ask, client):
    found = ask("What is 3 * 4?")
    assert client.responses.retrieve(found.id).output_text == found.output_text
    (item,) = client.responses.input_items.list(found.id).data
    assert (item.role, item.content) == ("user", "What is 3 * 4?")
    client.responses.delete(found.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            call(found.id)
    with pytest.raises(openai.NotFoundError, match="Previous response with id"):
        ask("And 4 * 5?", previous_response_id=found.id)


def test_a_response_that_is_not_stored_cannot_be_continued(ask, client):
    found = ask("What is 3 * 4?", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(found.id)


def test_a_running_response_is_cancelled(serve, slow_nano):
    """Another request cancels it. The stream ends with what was generated until then."""
    with serve(slow_nano) as url, connect(url) as client:
        events = iter(client.responses.create(model="nano", input=LONG, stream=True))
        first = next(events)
        assert client.responses.retrieve(first.response.id).status == "in_progress"
        assert client.responses.cancel(first.response.id).status == "cancelled"
        rest = list(events)
        assert rest[-1].type == "response.incomplete"
        assert rest[-1].response.status == "cancelled"
        assert client.responses.retrieve(first.response.id).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
            client.responses.cancel(first.response.id)


def test_a_running_response_that_is_deleted_is_not_stored(serve, slow_nano):
    with serve(slow_nano) as url, connect(url) as client:
        events = iter(client.responses.create(model="nano", input=LONG, stream=True))
        first = next(events)
        client.responses.delete(first.response.id)
        assert list(events)[-1].type == "response.incomplete"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.response.id)


def test_a_client_that_vanishes_frees_its_row(serve, slow_nano):
    with serve(slow_nano, limits=Limits(rows=1, waiting=0)) as url, connect(url) as client:
        stream = client.responses.create(model="nano", input=LONG, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="the server is busy"):
            client.responses.create(model="nano", input=PRODUCT)
        stream.close()
        assert ask_until_free(client) == "12"


def test_a_failure_ends_a_stream_with_an_event(serve, monkeypatch):
    """Both APIs have an event for it, and their client raises or shows it."""
    add = ReplyBuilder.add

    def fail_later(self, token):
        if len(self.tokens) == 4:
            raise ZeroDivisionError("a secret of the server")
        return add(self, token)

    monkeypatch.setattr(ReplyBuilder, "add", fail_later)
    with serve() as url, connect(url) as client:
        *_, last = client.responses.create(model="nano", input=PRODUCT, stream=True)
        messages = [{"role": "user", "content": PRODUCT}]
        chunks = client.chat.completions.create(model="nano", messages=messages, stream=True)
        with pytest.raises(openai.APIError, match="the server failed"):
            list(chunks)
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.message == "the server failed; its terminal shows why"


def ask_until_free(client, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            options = {"reasoning": {"effort": "low"}}
            return client.responses.create(model="nano", input=PRODUCT, **options).output_text
        except openai.RateLimitError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_hidden_reasoning_is_kept_for_the_tool_loop(serve, nano):
    """The client gets an item without text, and the server finds its text by the id."""
    question = "Look up moon and gold and add them."
    tool = {"type": "function", **asdict(LOOK_UP_TOOL)}
    with serve(hide_analysis=True) as url:
        client = connect(url)
        hidden: list = []
        items: list = [{"role": "user", "content": question}]
        for value in ("31", "57"):
            found = client.responses.create(model="nano", input=items, tools=[tool])
            hidden += [item for item in found.output if item.type == "reasoning"]
            call = found.output[-1]
            assert call.type == "function_call"
            items += [each.model_dump(exclude_none=True) for each in found.output]
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": value})
        last = client.responses.create(model="nano", input=items, tools=[tool])
    assert last.output_text == "88"
    hidden += [item for item in last.output if item.type == "reasoning"]
    assert hidden
    assert not any(item.content for item in hidden)


@pytest.mark.parametrize("id", [5, ["a"], {"a": 1}])
def test_an_id_that_is_not_text_is_refused(ask, id):
    """It could not be stored."""
    with pytest.raises(openai.BadRequestError, match=r"input\[0\].id must be text"):
        ask([{"role": "user", "content": "hi", "id": id}], max_output_tokens=1)
