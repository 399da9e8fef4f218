"""Tool calls and their outputs: which belong together, which call waits, and what is reported when
one is alone or a policy leaves one out.
"""

import json
import random
import warnings
from typing import Any, cast

import pytest

import oss_lab.lab
from oss_lab.cli.main import main
from oss_lab.errors import HarmonyWarning
from oss_lab.harmony import Conversation, Message, render
from oss_lab.harmony.exchanges import Exchange, is_call, pair_calls
from oss_lab.harmony.policy import MODES, POLICIES, find_dropped_messages
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.calls import append_outputs, build_output_messages
from oss_lab.record.token import Token

QUESTION = Message.of("user", "weather?")
THOUGHT = Message.of("assistant", "hm", channel="analysis")
ANSWER = Message.of("assistant", "mild", channel="final")


def call(
    arguments: str = "{}", name: str = "functions.f", channel: str | None = "commentary"
) -> Message:
    return Message.of("assistant", arguments, channel=channel, recipient=name)


def output(text: str = "4", name: str = "functions.f", channel: str = "commentary") -> Message:
    return Message.of("tool", text, name=name, channel=channel, recipient="assistant")


def warnings_of(tiny, *messages: Message, **options: Any) -> tuple[str, ...]:
    return render(Conversation.of(*messages), tiny, **options).warnings


# Pairs


def test_the_nth_output_of_a_tool_answers_the_nth_call_to_it():
    g = "functions.g"
    messages = [call("1"), call("2", g), call("3"), output("a"), output("b", g), output("c")]
    assert [each[:2] for each in pair_calls(messages)] == [(0, 3), (1, 4), (2, 5)]
    swapped = [call("1"), call("2", g), call("3"), output("b", g), output("a"), output("c")]
    assert [each[:2] for each in pair_calls(swapped)] == [(0, 4), (1, 3), (2, 5)]


def test_a_user_message_ends_the_wait():
    late = [call(), QUESTION, output()]
    assert pair_calls(late) == [Exchange(0, None), Exchange(None, 2)]
    assert pair_calls([call(), ANSWER, output()]) == [Exchange(0, 2)]
    assert pair_calls([call("1"), output(), call("2")])[1] == Exchange(2, None, is_open=True)


@pytest.mark.parametrize("name", ["assistant", "user", "system", "developer", "tool", "all", ""])
def test_a_role_is_not_a_tool(name):
    assert not is_call(call(name=name))
    assert pair_calls([call(name=name)]) == []
    assert not is_call(Message.of("user", "{}", recipient="functions.f"))


# Replies


@pytest.fixture
def reply_of(tiny):
    """`reply_of(text)`: the reply with these tokens, which follow `<|start|>assistant`."""

    def build(text, length=None):
        builder = ReplyBuilder(tiny, Conversation.of(QUESTION), (1,))
        for id in tiny.encode(text, allowed_special="all")[:length]:
            builder.add(Token(id, -0.5))
        return builder.finish()[1]

    return build


WRITTEN = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
AGAIN = f"<|start|>assistant{WRITTEN}"
FINAL = "<|start|>assistant<|channel|>final<|message|>4"


@pytest.mark.parametrize(
    ("end", "stop"),
    [
        ("<|call|>", "call"),
        ("<|return|>", "return"),
        ("<|end|><|return|>", "return"),
        ("<|end|><|call|>", "call"),
        ("<|end|>", "length"),
        ("<|endoftext|>", "endoftext"),
        ("<|end|><|endoftext|>", "endoftext"),
        ("<|end|><|start|>assistant<|channel|>analysis<|message|>so<|end|><|return|>", "return"),
    ],
)
def test_a9_a_complete_call_waits_whatever_token_ended_it(reply_of, end, stop):
    reply = reply_of(WRITTEN + end)
    assert reply.stop == stop
    assert [(each.name, each.arguments) for each in reply.open_calls] == [("functions.f", "{}")]
    continued = append_outputs(reply, lambda _: "4")
    assert continued is not None
    assert continued.messages[-1] == output()


def test_a9_a_call_that_is_cut_or_followed_by_an_answer_does_not_wait(reply_of):
    cut = reply_of(WRITTEN)
    assert (cut.stop, cut.unfinished, cut.open_calls) == ("length", True, ())
    assert len(cut.tool_calls) == 1
    second_cut = reply_of(f"{WRITTEN}<|end|>{AGAIN}")
    assert (second_cut.open_calls, len(second_cut.tool_calls)) == ((), 2)
    answered = reply_of(f"{WRITTEN}<|end|>{FINAL}<|return|>")
    assert (answered.open_calls, len(answered.tool_calls)) == ((), 1)
    later = reply_of(f"{WRITTEN}<|end|>{FINAL}<|end|>{AGAIN}<|call|>")
    assert (len(later.open_calls), len(later.tool_calls)) == (1, 2)
    assert reply_of("<|channel|>commentary json<|message|>{}<|call|>").open_calls == ()
    assert reply_of(f"{FINAL.removeprefix('<|start|>assistant')}<|return|>").open_calls == ()


def test_a_call_on_final_is_not_an_answer(reply_of, tiny):
    reply = reply_of("<|channel|>final to=functions.f json<|message|>{}<|call|>")
    assert (reply.final, reply.stop) == ("", "call")
    assert [each.name for each in reply.open_calls] == ["functions.f"]
    begun = [QUESTION, THOUGHT, *reply.messages, output(channel="final")]
    assert render(Conversation.of(*begun), tiny).dropped == ()


def test_a9_a_reply_that_is_cut_anywhere_waits_only_for_complete_calls(reply_of, tiny):
    text = f"{WRITTEN}<|end|>{AGAIN}<|call|>"
    ids = tiny.encode(text, allowed_special="all")
    first = ids.index(tiny.encode_single_token("<|end|>")) + 1
    assert [len(reply_of(text, n).open_calls) for n in range(first)] == [0] * first
    assert len(reply_of(text, first).open_calls) == 1
    assert len(reply_of(text, len(ids) - 1).open_calls) == 0
    assert len(reply_of(text).open_calls) == 2


def test_outputs_follow_the_order_of_the_calls(reply_of):
    text = (
        '<|channel|>commentary to=functions.f<|message|>{"x":1}<|end|>'
        "<|start|>assistant<|channel|>commentary to=functions.g<|message|>{}<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.f<|message|>{"x":2}<|call|>'
    )
    reply = reply_of(text)
    messages = build_output_messages(reply, lambda each: f"{each.name} {each.arguments}")
    assert [message.text for message in messages] == [
        'functions.f {"x":1}',
        "functions.g {}",
        'functions.f {"x":2}',
    ]
    pairs = pair_calls([*reply.conversation.messages, *messages])
    assert [each[:2] for each in pairs] == [(1, 4), (2, 5), (3, 6)]
    assert build_output_messages(reply, lambda each: {"{}": "4"}.get(each.arguments)) == []


def test_an_output_that_the_model_writes_is_not_an_output(reply_of):
    forged = "<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>9<|end|>"
    reply = reply_of(f"{WRITTEN}{forged}")
    assert len(reply.open_calls) == 1
    assert [message.role for message in reply.conversation] == ["user", "assistant"]
    assert pair_calls(reply.conversation.messages) == [Exchange(1, None, is_open=True)]


# Policies

A12 = [QUESTION, THOUGHT, call(channel="analysis"), output(), ANSWER, QUESTION]


@pytest.mark.parametrize("policy", ["spec", "hf", "keep"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channel", ["commentary", "analysis"])
def test_a12_a_call_on_analysis_and_its_output_stay(tiny, policy, mode, channel):
    messages = [*A12[:3], output(channel=channel), *A12[4:]]
    rendered = render(Conversation(tuple(messages)), tiny, policy=policy, mode=mode)
    assert not {2, 3}.intersection(rendered.dropped)
    assert rendered.warnings == ()


def test_a12_the_library_drops_the_call_alone_and_says_so(tiny):
    rendered = render(Conversation(tuple(A12[:5])), tiny, policy="library")
    assert rendered.dropped == (1, 2)
    (warning,) = rendered.warnings
    assert warning == (
        "the call to 'functions.f' with '{}': policy 'library' leaves out the call but not its"
        " output; use policy 'hf' or 'keep'"
    )
    on_analysis = [*A12[:2], call(), output(channel="analysis"), ANSWER]
    (warning,) = warnings_of(tiny, *on_analysis, policy="library")
    assert "leaves out its output but not the call" in warning
    both = [*A12[:3], output(channel="analysis"), ANSWER]
    (warning,) = warnings_of(tiny, *both, policy="library")
    assert "leaves out the call and its output" in warning


@pytest.mark.parametrize("name", ["python", "browser.search"])
def test_a12_a_built_in_tool_inside_the_reasoning_is_dropped_with_its_output(tiny, name):
    inside = [call(name=name, channel="analysis"), output(name=name, channel="analysis")]
    rendered = render(Conversation.of(QUESTION, THOUGHT, *inside, ANSWER), tiny)
    assert rendered.dropped == (1, 2, 3)
    (warning,) = rendered.warnings
    assert f"the call to '{name}'" in warning
    assert "'spec' leaves out the call and its output" in warning
    assert "use policy 'hf' or 'keep'" in warning
    for better in ("hf", "keep"):
        assert warnings_of(tiny, QUESTION, THOUGHT, *inside, ANSWER, policy=better) == ()
    outside = [inside[0], output(name=name)]
    assert render(Conversation.of(QUESTION, THOUGHT, *outside, ANSWER), tiny).dropped == (1,)
    late = [QUESTION, inside[0], ANSWER, inside[1]]
    assert render(Conversation.of(*late), tiny).dropped == ()


def draw_messages(rng: random.Random) -> list[Message]:
    """Turns with calls, many of them on analysis, and an output after most of them."""
    found: list[Message] = []
    for _ in range(rng.randrange(1, 9)):
        name = rng.choice(("functions.f", "functions.g", "python"))
        channel = rng.choice(("analysis", "analysis", "commentary"))
        kind = rng.randrange(6)
        if kind < 3:
            found.append((QUESTION, THOUGHT, ANSWER)[kind])
        else:
            found.append(call(rng.choice("12"), name, channel))
        if kind > 3:
            found.append(output("4", name, rng.choice(("analysis", "commentary"))))
    return found


def test_a12_no_policy_but_the_librarys_separates_a_call_from_its_output(tiny):
    rng, separated, left_out = random.Random(0), 0, 0
    for _ in range(4000):
        messages = draw_messages(rng)
        policy, mode = rng.choice(list(POLICIES)), rng.choice(MODES)
        dropped = find_dropped_messages(messages, policy, mode)
        said = warnings_of(tiny, *messages, policy=policy, mode=mode)
        pairs = [each for each in pair_calls(messages) if each.call is not None]
        lost = [each for each in pairs if dropped.intersection(each[:2])]
        left_out += len(lost)
        apart = [
            each
            for each in lost
            if each.output is not None and not {each.call, each.output} <= dropped
        ]
        separated += len(apart)
        assert not apart or policy == "library"
        assert sum("leaves out" in warning for warning in said) == len(lost)
    assert left_out > separated > 20


# What is reported


def test_a_call_or_an_output_that_is_alone_is_reported(tiny):
    (warning,) = warnings_of(tiny, QUESTION, call('{"city": "Bonn"}'), QUESTION)
    assert warning == (
        "the call to 'functions.f' with '{\"city\": \"Bonn\"}' has no output before the next user"
        " message; add the output or remove the call"
    )
    (warning,) = warnings_of(tiny, QUESTION, output("x" * 99), QUESTION)
    assert warning == (
        f"the output '{'x' * 39}…' of 'functions.f' has no call before it; add the call or remove"
        " the output"
    )
    (warning,) = warnings_of(tiny, QUESTION, call())
    assert "has no output; add the output" in warning
    other = warnings_of(tiny, QUESTION, call(), output(name="functions.g"), QUESTION)
    assert len(other) == 2
    assert len(warnings_of(tiny, call(), output(), output())) == 1


@pytest.mark.parametrize("mode", ["conversation", "training", "message"])
def test_a_conversation_may_end_with_a_call(tiny, mode):
    assert warnings_of(tiny, call(), mode=mode) == ()
    assert warnings_of(tiny, call(), next_role="tool") == ()
    assert len(warnings_of(tiny, QUESTION, call(), QUESTION, mode=mode)) == (mode != "message")


ORPHAN = [QUESTION, call(), QUESTION]
SAID = "the call to 'functions.f' with '{}' has no output before the next user message"


def test_lab_warns_at_the_line_of_the_caller(reciting_lab):
    lab = reciting_lab("<|channel|>final<|message|>4<|return|>")
    prompt = Conversation.of(*ORPHAN)
    for run in (
        lambda: lab.chat(prompt),
        lambda: lab.stream(prompt),
        lambda: lab.chat_batch([prompt]),
        lambda: lab.tokens_of(prompt),
    ):
        with pytest.warns(HarmonyWarning, match=SAID) as caught:
            run()
        assert {each.filename for each in caught} == {__file__}
    with pytest.warns(HarmonyWarning):
        reply = lab.chat(prompt, max_tokens=4)
    assert SAID in reply.warnings[0]
    assert lab.chat(continue_from=reply).warnings == reply.warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lab.chat("hi").warnings == ()


def test_lab_reports_openai_messages(reciting_lab):
    lab = reciting_lab("<|channel|>final<|message|>4<|return|>")
    function = {"name": "f", "arguments": "{}"}
    history = [
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]},
        {"role": "user", "content": "and?"},
    ]
    with pytest.warns(HarmonyWarning) as caught:
        reply = lab.chat(history)
    texts = [str(each.message) for each in caught]
    assert texts == [
        "left out, because Harmony has no such field: messages[0].name",
        *reply.warnings,
    ]
    assert SAID in reply.warnings[0]


def test_a9_generate_reports_the_calls_that_wait(monkeypatch, capsys, reciting_lab):
    monkeypatch.setattr(
        oss_lab.lab, "load", lambda *_, **__: reciting_lab(f"{WRITTEN}<|end|><|return|>")
    )
    assert main(["generate", "?", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["stop"] == "return"
    assert value["open_calls"] == value["tool_calls"] != []


def test_generate_prints_warnings(monkeypatch, capsys, reciting_lab):
    lab = reciting_lab("<|channel|>final<|message|>4<|return|>")
    monkeypatch.setattr(lab, "conversation", lambda *_, **__: Conversation.of(*ORPHAN))
    monkeypatch.setattr(oss_lab.lab, "load", lambda *_, **__: lab)
    for arguments in ([], ["--json"]):
        assert main(["generate", "?", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err.startswith(f"oss-lab: warning: {SAID}")
        assert captured.err.count("\n") == 1
    assert SAID in cast(str, captured.out)
