"""The effort widget, tested through its traits: no kernel, no model, no browser."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from oss_widgets.effort import EffortWidget
from oss_widgets.effort.answer import MAX_TOKENS

from oss_lab.errors import LabError
from oss_lab.lab import Lab
from oss_lab.nano.gallery import GALLERY, Example
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token
from oss_lab.tokenizer import load_vocabulary

VIEW = "application/vnd.jupyter.widget-view+json"
QUESTION = "What is 2 * 3?"
ARGUMENTS = '{"expression":"6*7"}'
CALL = f"<|channel|>commentary to=functions.calculator<|message|>{ARGUMENTS}<|call|>"


class FakeLab:
    """Thinks "1+1" at medium and high effort. Answers by repeating the last message, but calls the
    calculator for "call"."""

    effort = "medium"
    conversation = Lab.conversation

    def __init__(self):
        self.tokenizer = load_vocabulary("nano")
        self.prompts = []

    @property
    def asked(self):
        """The last message of each prompt, and its effort."""
        return [
            (prompt.messages[-1].text, prompt.messages[0].content[0].reasoning_effort)
            for prompt in self.prompts
        ]

    def chat(self, prompt, *, max_tokens):
        assert max_tokens == MAX_TOKENS
        self.prompts.append(prompt)
        said, effort = self.asked[-1]
        if said == "too long":
            raise LabError("prompt 0 has 9000 tokens; the context is <8192>")
        thought = "" if effort == "low" else "<|channel|>analysis<|message|>1+1<|end|>"
        text = f"{thought}<|start|>assistant" if thought else ""
        encode = self.tokenizer.encode
        if said == "call":
            ids = encode(text + CALL, allowed_special="all")
        else:
            ids = encode(f"{text}<|channel|>final<|message|>", allowed_special="all")
            ids += self.tokenizer.encode_ordinary(said)
            ids += encode("<|return|>", allowed_special="all")
        builder = ReplyBuilder(self.tokenizer, prompt, (1,))
        for token in ids:
            builder.add(Token(token, math.log(0.5)))
        return builder.finish()[1]


EXAMPLE = Example(
    "a <call>",
    "call",
    "high",
    "42",
    "A tool is <called>.",
    instructions="Be <brief>.",
    tools=(CALCULATOR_TOOL,),
    tool_outputs={ARGUMENTS: "<42>"},
    history=(("1<2?", "<yes>"),),
)


@pytest.fixture
def gallery(monkeypatch):
    other = replace(EXAMPLE, question="no call", instructions=None, tools=(), history=())
    monkeypatch.setattr("oss_widgets.effort.widget.GALLERY", (EXAMPLE, other))


@pytest.fixture
def lab():
    return FakeLab()


@pytest.fixture
def widget(lab):
    return EffortWidget(lab, QUESTION)


def choose(toggle, n):
    """Send what the front end sends when the n-th button is pressed."""
    toggle.set_state({"index": n})


def test_it_asks_one_question_at_the_start(lab, widget):
    assert lab.asked == [(QUESTION, "low")]
    assert widget.effort.options == ("low", "medium", "high")
    assert "analysis" not in widget.answer.value
    assert "final" in widget.answer.value


def test_every_switch_asks_again_and_shows_both_channels(lab, widget):
    choose(widget.effort, 2)
    assert lab.asked[-1] == (QUESTION, "high")
    assert "<b>analysis</b>" in widget.answer.value
    assert widget.status.value == ""
    choose(widget.effort, 0)
    assert [effort for _, effort in lab.asked] == ["low", "high", "low"]
    assert "<b>analysis</b>" not in widget.answer.value


def test_a_new_question_is_asked_at_the_chosen_effort(lab, widget):
    choose(widget.effort, 1)
    widget.question.set_state({"value": "4 + 4"})
    assert lab.asked[-1] == ("4 + 4", "medium")


def test_an_empty_question_is_reported_and_not_asked(lab, widget):
    widget.question.set_state({"value": "  "})
    assert len(lab.asked) == 1
    assert widget.answer.value == "<p><b>There is no question: write one and press Enter.</b></p>"


def test_a_mistake_is_one_escaped_sentence_and_the_next_question_works(widget):
    widget.question.set_state({"value": "too long"})
    assert "the context is &lt;8192&gt;" in widget.answer.value
    assert widget.status.value == ""
    widget.question.set_state({"value": "1 + 1"})
    assert "<b>final</b>" in widget.answer.value


def test_a_bug_in_our_code_is_not_hidden(lab, widget):
    lab.chat = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        widget.question.value = "1 + 1"


def test_user_text_is_never_markup(widget):
    widget.question.set_state({"value": "<img src=x onerror=alert(1)>"})
    for html in (widget.answer.value, widget._repr_mimebundle_()["text/html"]):
        assert "<img" not in html
        assert "&lt;" in html


def test_a_saved_notebook_shows_the_last_reply_without_a_kernel(widget):
    choose(widget.effort, 1)
    bundle = widget._repr_mimebundle_()
    assert set(bundle) == {VIEW, "text/html", "text/plain"}
    assert bundle["text/html"].startswith("<p><b>What is 2 * 3? (medium effort)</b></p>")
    assert widget.answer.value in bundle["text/html"]
    assert bundle["text/plain"].startswith("What is 2 * 3? (medium effort): 3 analysis tokens")


def test_without_an_example_nothing_comes_before_the_question(lab, widget):
    assert widget.setting.value == ""
    assert [message.role for message in lab.prompts[0]] == ["system", "user"]


def test_an_example_fills_the_controls_and_is_asked_once(gallery, lab):
    widget = EffortWidget(lab, QUESTION)
    assert widget.examples.options[0] == ("a question of your own", 0)
    choose(widget.examples, 1)
    assert (widget.question.value, widget.effort.value) == ("call", "high")
    assert lab.asked[1:] == [("call", "high"), ("<42>", "high")]  # the call's output was fed back
    _, developer, *history, question = lab.prompts[1].messages
    assert developer.content[0].instructions == "Be <brief>."
    assert developer.content[0].tools["functions"].tools == (CALCULATOR_TOOL,)
    assert [message.text for message in history] == ["1<2?", "<yes>"]
    assert question.text == "call"


def test_an_examples_settings_replies_and_outputs_are_shown_and_escaped(gallery, lab):
    widget = EffortWidget(lab, QUESTION)
    choose(widget.examples, 1)
    assert widget.setting.value == (
        "<p><b>Developer</b> Be &lt;brief&gt;.<br>"
        "<b>Tool</b> calculator: Evaluates an expression.<br>"
        "<b>Asked before</b> 1&lt;2?<br><b>Answered before</b> &lt;yes&gt;<br>"
        "<i>A tool is &lt;called&gt;.</i></p>"
    )
    shown = widget.answer.value
    output = "<p><b>functions.calculator</b> answers <code>&lt;42&gt;</code></p>"
    assert shown.index("<b>commentary") < shown.index(output) < shown.index("<b>final</b>")
    bundle = widget._repr_mimebundle_()
    assert bundle["text/html"].startswith("<p><b>call (high effort)</b></p><p><b>Developer</b>")
    assert output in bundle["text/html"]
    assert bundle["text/plain"].startswith(
        "call (high effort): Developer: Be <brief>. Tool: calculator: Evaluates an expression."
        " Asked before: 1<2? Answered before: <yes> A tool is <called>. 3 analysis tokens"
    )
    assert "functions.calculator answers <42>." in bundle["text/plain"]


def test_the_setting_is_kept_until_another_example_is_chosen(gallery, lab):
    widget = EffortWidget(lab, QUESTION)
    choose(widget.examples, 1)
    widget.question.set_state({"value": "mine"})
    assert lab.prompts[-1].messages[1].content[0].instructions == "Be <brief>."
    choose(widget.effort, 0)
    assert lab.asked[-2:] == [("mine", "high"), ("mine", "low")]
    choose(widget.examples, 2)
    assert lab.asked[-1] == ("no call", "high")
    assert [message.role for message in lab.prompts[-1]] == ["system", "user"]
    choose(widget.examples, 0)
    assert (lab.asked[-1], widget.setting.value) == (("no call", "high"), "")


def test_a_call_without_an_output_is_reported(lab, widget):
    widget.question.set_state({"value": "call"})
    sentence = "The model called functions.calculator, but there is no output for this call."
    assert widget.answer.value.endswith(f"<p><b>{sentence}</b></p>")
    assert widget._repr_mimebundle_()["text/plain"].endswith(sentence)
    assert len(lab.prompts) == 2


def test_every_example_of_the_gallery_can_be_chosen(lab, widget):
    for number, example in enumerate(GALLERY, 1):
        choose(widget.examples, number)
        assert lab.asked[-1] == (example.question, example.effort)
        assert widget.example == example


def test_the_gallery_belongs_to_nano_and_can_be_left_out(lab):
    without = EffortWidget(lab, QUESTION, examples=False)
    assert without.examples not in without.children

    def refuse(*_, **__):
        raise LabError("not asked here")

    tokenizer = SimpleNamespace(name="o200k_harmony")
    larger: Any = SimpleNamespace(tokenizer=tokenizer, conversation=lab.conversation, chat=refuse)
    shown = EffortWidget(larger, QUESTION)
    assert shown.examples not in shown.children


def test_it_is_made_of_standard_widgets(widget):
    kinds = [type(child) for child in widget.children]
    html = ipywidgets.HTML
    stock = [ipywidgets.Dropdown, ipywidgets.Text, html, ipywidgets.ToggleButtons, html, html]
    assert kinds == stock
