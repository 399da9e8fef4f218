"""Replies with a response format: every way to ask for one, and what it does to other options."""

import json
from typing import Any, cast

import pytest
from pydantic import BaseModel, Field

from oss_lab.cli.main import main
from oss_lab.errors import LabError
from oss_lab.grammar import Lark, Regex
from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    ResponseFormat,
    SystemContent,
    render,
)

QUESTION = "What is 34 * 6?"
SUM = {
    "title": "The sum",
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 99},
        "ok": {"type": "boolean"},
    },
    "required": ["a", "ok"],
    "additionalProperties": False,
}
HOT: Any = {"temperature": 1.5, "seed": 3, "analysis_budget": 8}


class Sum(BaseModel):
    """A sum and its name."""

    value: int = Field(ge=0, le=999)
    name: str | None = Field(None, max_length=6)


def developer_text(reply, encoding):
    """The developer message of a reply's prompt."""
    text = encoding.decode(reply.prompt_tokens)
    return text.partition("<|start|>developer<|message|>")[2].partition("<|end|>")[0]


def test_a_schema_limits_the_answer_and_is_shown_to_the_model(nano):
    reply = nano.chat(QUESTION, response_format=SUM, instructions="Be brief.", **HOT)
    assert set(json.loads(reply.final)) == {"a", "ok"}
    assert (reply.stop, reply.diagnostics) == ("return", ())
    shown = json.dumps(SUM, separators=(",", ":"))
    assert developer_text(reply, nano.tokenizer) == (
        f"# Instructions\n\nBe brief.\n\n# Response Formats\n\n## The_sum\n\n{shown}"
    )
    assert reply.prompt.messages[1].content[0].response_formats[0].schema == SUM


def test_a_pydantic_class_describes_the_answer(nano):
    reply = nano.chat(QUESTION, response_format=Sum, **HOT)
    assert isinstance(Sum.model_validate_json(reply.final), Sum)
    assert "## Sum\n\n// A sum and its name.\n{" in developer_text(reply, nano.tokenizer)
    assert '"additionalProperties":false' in developer_text(reply, nano.tokenizer)


def test_a_named_format_describes_the_answer(nano):
    named = ResponseFormat("sums", SUM, "Only sums.")
    reply = nano.chat(QUESTION, response_format=named, **HOT)
    assert "ok" in json.loads(reply.final)
    assert "## sums\n\n// Only sums.\n{" in developer_text(reply, nano.tokenizer)


@pytest.mark.parametrize("answer", [Regex("[0-9]{2} (yes|no)"), Lark('start: "a" start? | "b"')])
def test_a_regex_or_a_lark_grammar_is_not_shown(nano, answer):
    reply = nano.chat(QUESTION, response_format=answer, **HOT)
    assert reply.stop == "return"
    assert developer_text(reply, nano.tokenizer) == ""
    assert len(reply.final.strip("ab")) in (0, len("42 no"), len("42 yes"))


def test_a_conversation_gets_the_format_in_its_developer_message(nano):
    earlier = nano.chat(QUESTION, response_format=SUM, instructions="Be brief.", **HOT)
    asked = Conversation.of(*earlier.conversation, Message.of("user", "Again"))
    other = SUM | {"title": "other"}
    reply = nano.chat(asked, response_format=other, **HOT)
    text = developer_text(reply, nano.tokenizer)
    assert text.count("# Response Formats") == 1
    assert "## The_sum\n\n" in text
    assert "## other\n\n" in text
    again = nano.chat(asked, response_format=SUM, **HOT)
    assert again.prompt.messages == asked.messages


def test_a_conversation_without_a_developer_message_gets_one(nano):
    asked = Conversation.of(Message.of("system", SystemContent()), Message.of("user", QUESTION))
    reply = nano.chat(asked, response_format=SUM, **HOT)
    roles = [message.role for message in reply.prompt]
    assert roles == ["system", "developer", "user"]
    assert isinstance(reply.prompt.messages[1].content[0], DeveloperContent)
    assert nano.trace(QUESTION, response_format=SUM, effort="medium").tokens == tuple(
        render(reply.prompt, nano.tokenizer).tokens
    )


def test_a_reply_that_is_cut_is_not_complete_and_can_be_continued(nano):
    whole = nano.chat(QUESTION, response_format=SUM, **HOT)
    part = nano.chat(QUESTION, response_format=SUM, max_tokens=len(whole.ids) - 4, **HOT)
    assert (part.stop, part.unfinished) == ("length", True)
    with pytest.raises(ValueError, match=r"char \d+"):
        json.loads(part.final)
    rest = nano.chat(continue_from=part, response_format=SUM, temperature=2.0, seed=1)
    assert rest.ids[: len(part.ids)] == part.ids
    assert set(json.loads(rest.final)) == {"a", "ok"}


def test_a_given_beginning_must_fit(nano):
    reply = nano.chat(QUESTION, response_format=SUM, continue_from='{"a": 4', **HOT)
    assert json.loads(reply.final)["a"] in (4, *range(40, 50))
    with pytest.raises(LabError, match='continue_from: the schema does not allow "x" here'):
        nano.chat(QUESTION, response_format=SUM, continue_from="x")


def test_a_stop_string_may_cut_the_answer(nano):
    reply = nano.chat(QUESTION, response_format=SUM, stop=":", **HOT)
    assert reply.stop == "text"
    assert reply.final.replace(" ", "").replace("\n", "") in ('{"a"', '{"ok"')


def test_a_budget_waits_for_the_end_of_a_character(nano):
    """At this temperature, one in five tokens of the analysis ends inside a character."""
    waited = 0
    for seed in range(40):
        options: Any = {"temperature": 50.0, "seed": seed, "analysis_budget": 5, "max_tokens": 40}
        reply = nano.chat(QUESTION, response_format=Regex("yes|no"), **options)
        thought = reply.messages[0]
        if thought.channel == "analysis" and reply.stop == "return":
            assert len(thought.content[0].ids) <= 5 + 3
            assert reply.diagnostics == ()
            assert reply.final in ("yes", "no")
            waited += len(thought.content[0].ids) > 5
    assert waited


def test_the_log_probability_is_that_of_the_model_without_the_format(nano):
    reply = nano.chat(QUESTION, response_format=Regex("yes|no"), analysis_budget=0, seed=0)
    logits = nano.logits([*reply.prompt_tokens, *reply.ids[:-1]])[-len(reply.ids) :]
    expected = logits.log_softmax(-1)[range(len(reply.ids)), list(reply.ids)]
    assert reply.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_stream_gives_the_same_reply(nano):
    stream = nano.stream(QUESTION, response_format=SUM, **HOT)
    text = "".join(
        event.text
        for event in stream
        if type(event).__name__ == "Delta" and event.channel == "final"
    )
    assert text == stream.reply.final == nano.chat(QUESTION, response_format=SUM, **HOT).final


def test_a_batch_gives_each_row_its_own_tools_and_the_same_as_alone(nano):
    def prompt(*names):
        tools = [{"type": "function", "function": {"name": name}} for name in names]
        return nano.conversation(QUESTION, tools=tools)

    asked = [prompt("f"), prompt("g", "h"), prompt()]
    options: Any = {"temperature": 1.5, "seed": 5, "max_tokens": 60, "well_formed": True}
    together = nano.chat_batch(asked, **options)
    for n, question in enumerate(asked):
        (alone,) = nano.chat_batch([question], draws=[n], **options)
        assert alone.ids == together[n].ids


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"response_format": "json"}, "response_format: expected a pydantic model class"),
        ({"response_format": {"not": {}}}, "the schema cannot be used: Unimplemented keys"),
        ({"well_formed": "yes"}, "well_formed is 'yes'; it must be True or False"),
    ],
)
def test_a_mistake_gives_one_sentence(nano, options, complaint):
    with pytest.raises(LabError, match=complaint):
        nano.chat(QUESTION, **options)


@pytest.mark.parametrize("options", [{"response_format": SUM}, {"well_formed": True}])
def test_plain_text_has_no_format(nano, options):
    with pytest.raises(LabError, match="has no effect on plain text: use `chat`"):
        nano.generate("What is", **cast(Any, options))


def test_the_command_reads_a_schema(nano, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: nano)
    file = tmp_path / "sum.json"
    file.write_text(json.dumps(SUM), encoding="utf-8")
    arguments = ["--temperature", "1.5", "--seed", "3", "--analysis-budget", "8", "--json"]
    assert main(["generate", QUESTION, "--schema", str(file), *arguments]) == 0
    assert set(json.loads(json.loads(capsys.readouterr().out)["final"])) == {"a", "ok"}


@pytest.mark.parametrize(
    ("contents", "arguments", "complaint"),
    [
        ("[]", [], "expected a JSON schema such as"),
        ("{", [], "schema.json"),
        (None, [], "schema.json"),
        ('{"$ref": "#"}', [], "only an infinite value fits"),
        ("{}", ["--raw"], "--raw continues plain text: leave --schema out"),
    ],
)
def test_the_command_refuses_a_schema_in_one_sentence(
    capsys, tmp_path, contents, arguments, complaint
):
    file = tmp_path / "schema.json"
    if contents is not None:
        file.write_text(contents, encoding="utf-8")
    assert main(["generate", QUESTION, "--schema", str(file), *arguments]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
