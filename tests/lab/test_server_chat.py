"""/v1/chat/completions with the real `openai` client, unmodified."""

import json
import math
from dataclasses import asdict

import pytest

from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

openai = pytest.importorskip("openai", reason="the extra `test` is not installed")

PRODUCT = "What is 3 * 4?"
HARD = "What is 4815 * 884?"
CALCULATOR = {"type": "function", "function": asdict(CALCULATOR_TOOL)}


@pytest.fixture(scope="module")
def url(serve):
    with serve() as found:
        yield found


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def ask(client):
    """`ask(question, **options)`: a completion of one user message, or of a list of messages."""

    def run(question, **options):
        messages = (
            [{"role": "user", "content": question}] if isinstance(question, str) else question
        )
        return client.chat.completions.create(model="nano", messages=messages, **options)

    return run


def join(chunks, field, index=0):
    return "".join(
        getattr(choice.delta, field, None) or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def test_a_completion_is_the_reply_of_the_lab(ask, nano):
    found, reply = ask(PRODUCT), nano.chat(PRODUCT)
    (choice,) = found.choices
    assert choice.message.content == reply.final == "12"
    assert choice.message.reasoning_content == reply.analysis
    assert choice.finish_reason == "stop"
    assert found.usage.prompt_tokens == len(reply.prompt_tokens)
    assert found.usage.completion_tokens == len(reply.tokens)
    assert 0 < found.usage.completion_tokens_details.reasoning_tokens < len(reply.tokens)


def test_a_stream_has_the_same_text_and_its_usage_at_the_end(ask, nano):
    reply = nano.chat(PRODUCT)
    chunks = list(ask(PRODUCT, stream=True, stream_options={"include_usage": True}))
    assert join(chunks, "content") == reply.final
    assert join(chunks, "reasoning_content") == reply.analysis
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [
        "stop"
    ]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage.completion_tokens == len(reply.tokens)
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_calculator_solves_what_the_model_alone_cannot(ask, stream):
    """The client runs the tool and sends the whole conversation again, as the API expects."""
    assert "too hard" in ask(HARD).choices[0].message.content
    messages = [{"role": "user", "content": HARD}]
    if stream:
        chunks = list(ask(messages, tools=[CALCULATOR], stream=True))
        parts = [
            call for chunk in chunks for c in chunk.choices for call in c.delta.tool_calls or ()
        ]
        assert {part.index for part in parts} == {0}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        id, name = parts[0].id, parts[0].function.name
        arguments = "".join(part.function.arguments for part in parts)
    else:
        (choice,) = ask(messages, tools=[CALCULATOR]).choices
        (call,) = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls"
        id, name, arguments = call.id, call.function.name, call.function.arguments
    assert name == "calculator"
    assert json.loads(arguments) == {"expression": "4815*884"}
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "4256460"},
    ]
    assert ask(messages, tools=[CALCULATOR]).choices[0].message.content == "4256460"


def test_a_tool_choice_is_kept(ask):
    forced = {"type": "function", "function": {"name": "calculator"}}
    for choice in ("required", forced):
        (found,) = ask("What is 3 * 4?", tools=[CALCULATOR], tool_choice=choice).choices
        assert found.finish_reason == "tool_calls"
        assert found.message.tool_calls[0].function.name == "calculator"
    other = {"type": "function", "function": {"name": "get_weather", "description": "The weather."}}
    (found,) = ask("What is 3 * 4?", tools=[other, CALCULATOR], tool_choice="required").choices
    assert found.message.tool_calls[0].function.name in ("calculator", "get_weather")
    (found,) = ask(HARD, tools=[CALCULATOR], tool_choice="none").choices
    assert found.message.tool_calls is None
    with pytest.raises(openai.BadRequestError, match="names 'other', which is not in tools"):
        ask(
            HARD,
            tools=[CALCULATOR],
            tool_choice={"type": "function", "function": {"name": "other"}},
        )


def test_logprobs_are_those_of_the_answer(ask, nano):
    reply = nano.chat(PRODUCT, alternatives=3)
    (choice,) = ask(PRODUCT, logprobs=True, top_logprobs=3).choices
    content = choice.logprobs.content
    assert "".join(each.token for each in content) == "12"
    assert b"".join(bytes(each.bytes) for each in content) == b"12"
    ids = nano.tokenizer.encode_ordinary("12")
    expected = [token for token in reply.tokens if token.id in ids][-len(ids) :]
    for found, token in zip(content, expected, strict=True):
        assert math.isclose(found.logprob, token.logprob, abs_tol=1e-4)
        assert [each.logprob for each in found.top_logprobs] == pytest.approx(
            [logprob for _, logprob in token.alternatives], abs=1e-3
        )
    streamed = [
        each
        for chunk in ask(PRODUCT, logprobs=True, stream=True)
        for each in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else ())
    ]
    assert [each.token for each in streamed] == [each.token for each in content]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_not_part_of_the_answer(ask, stream):
    """The answer is 12: the first digit may be the beginning of "13", so it is held back."""
    for stop, expected in (("2", "1"), (["x", "12"], ""), ("13", "12")):
        found = ask(PRODUCT, stop=stop, stream=stream)
        if stream:
            chunks = list(found)
            text, reason = join(chunks, "content"), chunks[-1].choices[0].finish_reason
        else:
            text, reason = found.choices[0].message.content, found.choices[0].finish_reason
        assert (text, reason) == (expected, "stop")


def test_an_answer_follows_its_schema(ask):
    schema = {
        "type": "object",
        "properties": {"product": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["product"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "result", "schema": schema}}
    (choice,) = ask(PRODUCT, response_format=form, reasoning_effort="low").choices
    assert choice.finish_reason == "stop"
    assert list(json.loads(choice.message.content)) == ["product"]
    plain = {"type": "json_object"}
    (choice,) = ask(PRODUCT, response_format=plain, max_tokens=20, reasoning_effort="low").choices
    assert choice.message.content.lstrip().startswith("{")
    for wrong, sentence in (
        ({"type": "yaml"}, "text, json_object or json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "x y", "schema": {}}}, "1 to 64 letters"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "the schema is missing"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}, "type"),
    ):
        with pytest.raises(openai.BadRequestError, match=sentence):
            ask(PRODUCT, response_format=wrong)


def test_a_reply_that_is_cut_says_so(ask):
    for name in ("max_tokens", "max_completion_tokens"):
        found = ask(PRODUCT, **{name: 5})
        assert found.choices[0].finish_reason == "length"
        assert found.usage.completion_tokens == 5
        assert found.choices[0].message.content == ""


def test_several_choices_have_streams_of_their_seed(ask, nano):
    question = "Name a color."
    options = {"temperature": 1.0, "seed": 7}
    found = ask(question, n=3, max_tokens=20, **options)
    replies = nano.chat_batch([question] * 3, max_tokens=20, **options)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    for choice, reply in zip(found.choices, replies, strict=True):
        assert choice.message.content == (reply.final or "")
        assert getattr(choice.message, "reasoning_content", "") == reply.analysis
    assert found.usage.completion_tokens == sum(len(reply.tokens) for reply in replies)
    chunks = list(ask(question, n=3, max_tokens=20, stream=True, **options))
    for index, reply in enumerate(replies):
        assert join(chunks, "reasoning_content", index) == reply.analysis


@pytest.mark.parametrize(
    ("asked", "used"), [("none", "low"), ("minimal", "low"), ("xhigh", "high"), ("low", None)]
)
def test_efforts_that_gpt_oss_lacks_are_mapped_and_stated(client, nano, asked, used):
    raw = client.chat.completions.with_raw_response.create(
        model="nano",
        messages=[{"role": "user", "content": PRODUCT}],
        reasoning_effort=asked,
        max_tokens=60,
    )
    note = f"effort {asked} was mapped to {used}" if used else None
    assert raw.headers.get("x-oss-lab-notes") == note
    reply = nano.chat(PRODUCT, effort=used or asked, max_tokens=60)
    assert getattr(raw.parse().choices[0].message, "reasoning_content", "") == reply.analysis


def test_the_chain_of_thought_can_be_hidden(serve):
    with serve(hide_analysis=True) as url:
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0)
        messages = [{"role": "user", "content": PRODUCT}]
        found = client.chat.completions.create(model="nano", messages=messages)
        chunks = list(client.chat.completions.create(model="nano", messages=messages, stream=True))
    assert found.choices[0].message.content == join(chunks, "content") == "12"
    assert "reasoning_content" not in found.choices[0].message.model_dump()
    assert not join(chunks, "reasoning_content")
    assert found.usage.completion_tokens_details.reasoning_tokens > 0


def test_images_are_refused_or_replaced(serve, ask):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is 3 * 4?"}, part]}]
    with pytest.raises(openai.BadRequestError, match="this model reads only text"):
        ask(messages)
    with serve(images="placeholder") as url:
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0)
        raw = client.chat.completions.with_raw_response.create(
            model="nano", messages=messages, max_tokens=20
        )
    assert "an image was replaced by a note" in raw.headers["x-oss-lab-notes"]
