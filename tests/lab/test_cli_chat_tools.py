"""Tool calls in a chat: the user types the output, or an example of the gallery provides it."""

import io
import re
from typing import cast

import pytest

from oss_lab.agents import Budget
from oss_lab.cli._calls import describe_open_call
from oss_lab.cli._session import Chat
from oss_lab.cli._transcript import Transcript
from oss_lab.harmony import Message
from oss_lab.lab import Lab
from oss_lab.model import Transformer
from oss_lab.nano.gallery import Example
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
from oss_lab.record.reply import ToolCall

THOUGHT = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>42<|return|>"
ARGUMENTS = '{"expression":"6*7"}'
CALL = f"<|channel|>commentary to=functions.calculator<|message|>{ARGUMENTS}<|call|>"
CALLED = f"[commentary to functions.calculator]\n{ARGUMENTS}\n"
WAITS = (
    f"(the model calls functions.calculator with {ARGUMENTS}; no tool runs here: type its output,"
    " or /undo to drop your last message, or /bye to leave)\n"
)
DECLARED = ["--tools", "calculator", "--calls", "0"]
ONLY_DECLARED = (
    "(tools: calculator, only declared to the model: you type the output of each call)\n"
)
RUN = f"functions.calculator({ARGUMENTS}) -> 42   TIME\n"
OUTPUT = (
    "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>42<|end|>"
    "<|start|>assistant"
)


class ScriptedModel:
    """Gives a reciting model another script for each reply, and repeats the last one."""

    def __init__(self, lab, scripts):
        self.model = lab.model
        self.scripts = [
            lab.tokenizer.encode(each, allowed_special="all") if isinstance(each, str) else [each]
            for each in scripts
        ]

    def __call__(self, tokens, cache, **options):
        reply = len(self.model.prompts) - (cache is self.model.cache)
        self.model.script = self.scripts[min(reply, len(self.scripts) - 1)]
        return self.model(tokens, cache, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.fixture
def scripted(reciting_lab):
    """`scripted(CALL, ANSWER)`: a Lab that gives these replies, one after the other."""

    def make(*scripts):
        lab = reciting_lab(ANSWER)
        return Lab(cast(Transformer, ScriptedModel(lab, scripts)), lab.tokenizer)

    return make


def seen_by_model(lab, prompt):
    return lab.tokenizer.decode(lab.model.prompts[prompt])


def without_times(out):
    """The transcript with TIME instead of the times of calls."""
    return re.sub(r"   (<1 ms|\d+ ms|\d+\.\d s)\n", "   TIME\n", out)


def test_the_user_acts_as_the_tool(talk, scripted):
    lab = scripted(THOUGHT + CALL, ANSWER, ANSWER)
    out = talk(lab, "6*7?", "42", "and?", arguments=DECLARED)
    answered = "[final]\n42\n"
    asked = f"{ONLY_DECLARED}> 6*7?\n[analysis]\nhm\n{CALLED}{WAITS}"
    assert out == f"{asked}> 42\n{answered}> and?\n{answered}"
    assert "type calculator = (_: {" in seen_by_model(lab, 0)
    # The turn is open, so the model sees its analysis.
    assert "<|message|>hm<|end|>" in seen_by_model(lab, 1)
    assert seen_by_model(lab, 1).endswith(OUTPUT)
    assert "hm" not in seen_by_model(lab, 2)
    assert "<|start|>user<|message|>and?<|end|>" in seen_by_model(lab, 2)


def test_undo_removes_an_output_and_then_the_call(talk, scripted):
    lab = scripted(CALL, ANSWER, ANSWER, ANSWER)
    out = talk(lab, "6*7?", "wrong", "/undo", "42", "/undo", "/undo", "hello", "/history")
    undone = f"> /undo\n(removed the last turn)\n{WAITS}"
    assert out.count(undone) == 2
    assert seen_by_model(lab, 2).endswith(OUTPUT)
    assert "wrong" not in seen_by_model(lab, 2)
    assert "6*7?" not in seen_by_model(lab, 3)
    assert out.endswith("> /history\n[user]\nhello\n[final]\n42\n")


def test_ctrl_c_after_an_output_leaves_the_call_open(talk, scripted):
    lab = scripted(CALL, KeyboardInterrupt, ANSWER)
    out = talk(lab, "6*7?", "41", "42")
    assert f"> 41\n(stopped; this turn was discarded)\n{WAITS}> 42\n[final]\n" in out
    assert seen_by_model(lab, 2).endswith(OUTPUT)
    assert "41" not in seen_by_model(lab, 2)


def test_ctrl_c_in_a_question_leaves_no_call(talk, scripted):
    lab = scripted(KeyboardInterrupt, ANSWER)
    out = talk(lab, "6*7?", "hello", arguments=DECLARED)
    assert "no tool runs here" not in out
    assert "<|start|>user<|message|>hello<|end|>" in seen_by_model(lab, 1)


def test_a_call_without_recipient_is_followed_by_the_user(talk, scripted):
    lab = scripted("<|channel|>commentary<|message|>{}<|call|>", ANSWER)
    assert "no tool runs here" not in talk(lab, "6*7?", "hello")
    assert "<|start|>user<|message|>hello<|end|>" in seen_by_model(lab, 1)


def test_a_call_is_shown_in_one_line_and_not_executed(talk, scripted):
    evil = '{\n  "x": "\x1b[2J"\n}'
    lab = scripted(CALL.replace(ARGUMENTS, evil), ANSWER)
    out = talk(lab, "a")
    assert (
        '(the model calls functions.calculator with { "x": "\\x1b[2J" }; no tool runs here' in out
    )
    assert "\x1b" not in out


def test_the_prompt_names_the_user_or_the_tool(scripted):
    lab = scripted(CALL, ANSWER)
    chat = Chat(lab, Transcript(io.StringIO()), "low", 99)
    assert chat.format_prompt() == "low> "
    chat.send("6*7?")
    assert chat.format_prompt() == "functions.calculator> "
    chat.send("42")
    assert chat.format_prompt() == "low> "


# Several calls, and outputs of any form


def written(name, arguments="{}"):
    return f"<|channel|>commentary to=functions.{name}<|message|>{arguments}"


AGAIN = "<|end|><|start|>assistant"
TWO = f"{written('f')}{AGAIN}{written('g', '[1]')}<|call|>"


def shown_output(text, name="f"):
    return f"<|start|>functions.{name} to=assistant<|channel|>commentary<|message|>{text}<|end|>"


def test_a14_the_user_is_asked_for_each_output(talk, scripted):
    lab = scripted(TWO, ANSWER)
    out = talk(lab, "a", "1", "2", "and?")
    first, second = re.findall(r"\(call .*?; no tool runs here.*?\)\n", out)
    assert first.startswith("(call 1 of 2: the model calls functions.f with {};")
    assert second.startswith("(call 2 of 2: the model calls functions.g with [1];")
    assert f"{first}> 1\n{second}> 2\n[final]\n42\n> and?\n[final]" in out
    assert seen_by_model(lab, 1).endswith(
        f"{shown_output('1')}{shown_output('2', 'g')}<|start|>assistant"
    )


def test_a14_two_calls_to_one_tool_are_answered_in_order(talk, scripted):
    lab = scripted(f"{written('f', '1')}{AGAIN}{written('f', '2')}<|call|>", ANSWER)
    out = talk(lab, "a", "x", "y")
    assert out.index("call 1 of 2: the model calls functions.f with 1;") < out.index("call 2 of 2")
    assert seen_by_model(lab, 1).endswith(
        f"{shown_output('x')}{shown_output('y')}<|start|>assistant"
    )


@pytest.mark.parametrize(
    ("typed", "output"),
    [
        ([""], ""),
        (["  "], ""),
        (["//"], "/"),
        (["//help"], "/help"),
        (["//quit"], "/quit"),
        (["///x"], "//x"),
        (['"""', '"""'], ""),
        (['""""""'], ""),
        (['"""', "  a", "", "/quit", "//b ", '"""'], "  a\n\n/quit\n//b "),
        (['"""a"""'], "a"),
        (['"a"'], '"a"'),
        (["a  b"], "a  b"),
    ],
)
def test_a14_any_output_can_be_given(talk, scripted, typed, output):
    lab = scripted(CALL, ANSWER)
    out = talk(lab, "6*7?", *typed, "and?")
    assert out.endswith("> and?\n[final]\n42\n")
    assert seen_by_model(lab, 1).endswith(f"{shown_output(output, 'calculator')}<|start|>assistant")


def test_a14_undo_removes_one_output_after_the_other(talk, scripted):
    lab = scripted(TWO, ANSWER)
    out = talk(lab, "a", "wrong", "/undo", "1", "2")
    assert "> wrong\n(call 2 of 2: the model calls" in out
    assert "> /undo\n(removed the last turn)\n(call 1 of 2: the model calls" in out
    assert "wrong" not in seen_by_model(lab, 1)
    assert f"{shown_output('1')}{shown_output('2', 'g')}" in seen_by_model(lab, 1)


def test_a14_undo_after_the_outputs_asks_for_the_last_one_again(talk, scripted):
    lab = scripted(TWO, ANSWER, ANSWER)
    out = talk(lab, "a", "1", "2", "/undo", "4")
    assert "> /undo\n(removed the last turn)\n(call 2 of 2: the model calls" in out
    assert f"{shown_output('1')}{shown_output('4', 'g')}" in seen_by_model(lab, 2)


def test_a14_ctrl_c_asks_for_the_last_output_again(talk, scripted):
    lab = scripted(TWO, KeyboardInterrupt, ANSWER)
    out = talk(lab, "a", "1", "2", "4")
    assert "> 2\n(stopped; this turn was discarded)\n(call 2 of 2: " in out
    assert f"{shown_output('1')}{shown_output('4', 'g')}" in seen_by_model(lab, 2)


def test_a14_the_prompt_names_the_next_tool(scripted):
    lab = scripted(TWO, ANSWER)
    chat = Chat(lab, Transcript(io.StringIO()), "low", 99)
    prompts = []
    for line in ("a", "1", "2"):
        chat.send(line)
        prompts.append(chat.format_prompt())
    assert prompts == ["functions.f> ", "functions.g> ", "low> "]


def test_a9_a_call_that_return_ends_gets_its_output(talk, scripted):
    lab = scripted(CALL.replace("<|call|>", "<|end|><|return|>"), ANSWER)
    assert WAITS in talk(lab, "6*7?", "42")
    assert seen_by_model(lab, 1).endswith(OUTPUT)


def test_a12_a_warning_is_shown_once(talk, scripted):
    lab = scripted(f"{written('f')}{AGAIN}{ANSWER}")
    out = talk(lab, "a", "b", "c", "/reset", "d")
    assert out.count("(warning: the call to 'functions.f' with '{}' has no output before") == 1
    assert out.index("> b") < out.index("(warning: ") < out.index("> c")


# Examples

EXAMPLE = Example(
    "a call",
    "6*7?",
    "high",
    "42",
    "A tool is called.",
    instructions="Be brief.",
    tools=(CALCULATOR_TOOL,),
    tool_outputs={ARGUMENTS: "42"},
    history=(("1+1?", "2"),),
)


@pytest.fixture
def gallery(monkeypatch):
    monkeypatch.setattr("oss_lab.nano.gallery.GALLERY", (EXAMPLE,))


def test_an_example_provides_its_settings_and_outputs(talk, scripted, gallery):
    lab = scripted(ANSWER, THOUGHT + CALL, ANSWER, ANSWER, ANSWER)
    out = talk(lab, "before", "/example 1", "after", "/reset", "anew", arguments=DECLARED)
    assert (
        "> /example 1\n(a call, effort high: A tool is called.)\n"
        "[developer]\n# Instructions\n\nBe brief.\n\n# Tools\n"
    ) in out
    assert (
        f"[user]\n1+1?\n[final]\n2\n[user]\n6*7?\n[analysis]\nhm\n{RUN}[final]\n42\n> after\n"
    ) in without_times(out)
    assert "before" not in seen_by_model(lab, 1)
    assert "# Instructions\n\nBe brief.\n\n# Tools" in seen_by_model(lab, 1)
    assert "Reasoning: high" in seen_by_model(lab, 1)
    assert seen_by_model(lab, 2).endswith(OUTPUT)
    assert "Be brief." in seen_by_model(lab, 3)
    assert seen_by_model(lab, 3).endswith("<|start|>user<|message|>after<|end|><|start|>assistant")
    assert "Be brief." not in seen_by_model(lab, 4)
    assert "type calculator" in seen_by_model(lab, 4)


def test_the_user_answers_calls_that_the_example_lacks(talk, scripted, gallery):
    other = CALL.replace("6*7", "6+7")
    lab = scripted(other, ANSWER)
    out = talk(lab, "/example 1", "42")
    assert WAITS.replace("6*7", "6+7") in out
    assert seen_by_model(lab, 1).endswith(OUTPUT)


def test_endless_calls_are_stopped(talk, reciting_lab, gallery):
    out = talk(reciting_lab(CALL), "/example 1")
    assert without_times(out).count(RUN) == Budget().calls
    why = "the budget of 16 calls is used up"
    assert out.endswith(WAITS.replace("no tool runs here", why))


def test_undo_after_an_example_keeps_its_settings(talk, scripted, gallery):
    lab = scripted(CALL, ANSWER, ANSWER)
    talk(lab, "/example 1", "/undo", "again")
    assert "Be brief." in seen_by_model(lab, 2)
    assert "6*7?" not in seen_by_model(lab, 2)


def test_ctrl_c_within_an_example_undoes_all_of_it(talk, scripted, gallery):
    lab = scripted(CALL, KeyboardInterrupt, ANSWER)
    out = talk(lab, "/example 1", "again")
    assert f"{RUN}(stopped; this turn was discarded)\n> again\n" in without_times(out)
    assert "6*7?" not in seen_by_model(lab, 2)


def test_a_note_about_a_call_is_short_also_if_its_arguments_are_not():
    call = ToolCall("functions.f", "x" * 100_000, "commentary")
    message = Message.of("assistant", call.arguments, channel="commentary", recipient=call.name)
    note = describe_open_call([Message.of("user", "hi"), message], [call])
    assert note.startswith("the model calls functions.f with xxx")
    assert len(note) < 1100
