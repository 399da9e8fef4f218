"""The effort widget at the level of its traits; no kernel, no model, no browser."""

import math

import ipywidgets
import pytest
from oss_widgets.effort import EffortWidget
from oss_widgets.effort.widget import MAX_TOKENS

from oss_lab.errors import LabError
from oss_lab.generate import Token
from oss_lab.harmony import Conversation, Message
from oss_lab.reply import ReplyBuilder
from oss_lab.tokenizer import load_vocabulary

VIEW = "application/vnd.jupyter.widget-view+json"


class FakeLab:
    """Thinks "1+1" at medium and high effort, answers by repeating the question."""

    def __init__(self):
        self.encoding = load_vocabulary("nano")
        self.asked = []

    def chat(self, question, *, effort, max_tokens):
        self.asked.append((question, effort, max_tokens))
        if question == "too long":
            raise LabError("Prompt 0 has 9000 tokens; the context is <8192>.")
        thought = "" if effort == "low" else "<|channel|>analysis<|message|>1+1<|end|>"
        text = f"{thought}<|start|>assistant" if thought else ""
        encode = self.encoding.encode
        ids = encode(f"{text}<|channel|>final<|message|>", allowed_special="all")
        ids += self.encoding.encode_ordinary(question) + encode("<|return|>", allowed_special="all")
        builder = ReplyBuilder(self.encoding, Conversation.of(Message.of("user", question)), (1,))
        for token in ids:
            builder.add(Token(token, math.log(0.5)))
        return builder.finish()[1]


@pytest.fixture
def lab():
    return FakeLab()


@pytest.fixture
def widget(lab):
    return EffortWidget(lab, "What is 2 * 3?")


def choose(toggle, n):
    """What the front end sends when the n-th button is pressed."""
    toggle.set_state({"index": n})


def test_it_asks_once_at_the_start(lab, widget):
    assert lab.asked == [("What is 2 * 3?", "low", MAX_TOKENS)]
    assert widget.effort.options == ("low", "medium", "high")
    assert "analysis" not in widget.answer.value
    assert "final" in widget.answer.value


def test_every_switch_asks_again_and_shows_both_channels(lab, widget):
    choose(widget.effort, 2)
    assert lab.asked[-1] == ("What is 2 * 3?", "high", MAX_TOKENS)
    assert "<b>analysis</b>" in widget.answer.value
    assert widget.status.value == ""
    choose(widget.effort, 0)
    assert [effort for _, effort, _ in lab.asked] == ["low", "high", "low"]
    assert "<b>analysis</b>" not in widget.answer.value


def test_a_new_question_is_asked_at_the_chosen_effort(lab, widget):
    choose(widget.effort, 1)
    widget.question.set_state({"value": "4 + 4"})
    assert lab.asked[-1] == ("4 + 4", "medium", MAX_TOKENS)


def test_no_question_is_told_and_not_asked(lab, widget):
    widget.question.set_state({"value": "  "})
    assert len(lab.asked) == 1
    assert widget.answer.value == "<p><b>There is no question: write one and press Enter.</b></p>"


def test_a_mistake_is_one_escaped_sentence_and_the_next_question_works(widget):
    widget.question.set_state({"value": "too long"})
    assert "the context is &lt;8192&gt;." in widget.answer.value
    assert widget.status.value == ""
    widget.question.set_state({"value": "1 + 1"})
    assert "<b>final</b>" in widget.answer.value


def test_a_defect_of_ours_is_not_hidden(lab, widget):
    lab.chat = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        widget.question.value = "1 + 1"


def test_what_a_person_writes_is_never_markup(widget):
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
    assert bundle["text/plain"].startswith("What is 2 * 3? (medium effort): analysis 3 tokens")


def test_it_is_made_of_stock_widgets(widget):
    kinds = [type(child) for child in widget.children]
    stock = [ipywidgets.Text, ipywidgets.ToggleButtons, ipywidgets.HTML, ipywidgets.HTML]
    assert kinds == stock
