"""`oss-lab chat` through a pipe: turns, commands, the list of examples, Ctrl-C and mistakes."""

import io
from dataclasses import replace

import pytest

from oss_lab.cli.main import main
from oss_lab.nano.gallery import ABILITIES, GALLERY

THOUGHT = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>42<|return|>"
SHOWN = "[analysis]\nhm\n[final]\n42\n"


def seen_by_model(lab, prompt):
    return lab.tokenizer.decode(lab.model.prompts[prompt])


def test_a_conversation_continues(talk, reciting_lab):
    lab = reciting_lab(THOUGHT + ANSWER)
    out = talk(lab, "6*7?", "", "  sure?  ")
    assert out == f"> 6*7?\n{SHOWN}> \n> sure?\n{SHOWN}"
    assert "6*7?" in seen_by_model(lab, 1)
    assert "<|message|>42<|end|>" in seen_by_model(lab, 1)
    assert "hm" not in seen_by_model(lab, 1)  # as the spec policy requires


def test_effort(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, "a", "/effort high", "b", "/effort", "/effort huge", "/effort low", "c")
    assert [
        f"Reasoning: {each}" in seen_by_model(lab, n)
        for n, each in enumerate(("medium", "high", "low"))
    ]
    assert "Reasoning: medium" in seen_by_model(lab, 0)
    assert "Reasoning: high" in seen_by_model(lab, 1)
    assert "Reasoning: low" in seen_by_model(lab, 2)
    assert "(effort is now high)" in out
    assert "(effort is high; /effort takes low, medium, high)" in out
    assert "(there is no effort 'huge'; /effort takes low, medium, high (it is still high))" in out
    lab = reciting_lab(ANSWER)
    talk(lab, "a", arguments=["--effort", "high"])
    assert "Reasoning: high" in seen_by_model(lab, 0)


def test_undo_and_reset(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, "first", "second", "/undo", "third", "/reset", "fourth", "/undo", "/undo")
    assert "first" in seen_by_model(lab, 2)
    assert "second" not in seen_by_model(lab, 2)
    assert "first" not in seen_by_model(lab, 3)
    assert "(started a new conversation)" in out
    assert out.endswith("(removed the last turn)\n> /undo\n(there is nothing to undo)\n")


def test_history(talk, reciting_lab):
    out = talk(reciting_lab(THOUGHT + ANSWER), "/history", "6*7?", "/history")
    assert out.startswith("> /history\n(the conversation is empty)\n")
    assert out.endswith(
        "> /history\n[user]\n6*7?\n[analysis] not shown to the model again\nhm\n[final]\n42\n"
    )


def test_help_quit_and_unknown_commands(talk, reciting_lab):
    out = talk(reciting_lab(ANSWER), "/help", "/xyz", "/efort", "/undo x", "/quit", "not reached")
    for command in ("/example", "/effort", "/undo", "/history", "/reset", "/help", "/quit"):
        assert f"({command} " in out
    assert "(/effort low|medium|high  set how much to think)" in out
    assert "(there is no /xyz; /help lists the commands, and //xyz sends it as text)" in out
    assert "(there is no /efort; did you mean /effort? /help lists" in out
    assert "(/undo takes no argument)" in out
    assert "not reached" not in out


def test_ctrl_c_stops_the_answer_and_not_the_chat(talk, reciting_lab):
    lab = reciting_lab("<|channel|>final<|message|>4", KeyboardInterrupt)
    out = talk(lab, "first", "/history", "second")
    stopped = "[final]\n4\n(stopped; this turn was discarded)\n"
    assert out == f"> first\n{stopped}> /history\n(the conversation is empty)\n> second\n{stopped}"
    assert "first" not in seen_by_model(lab, 1)


def test_a_full_context_is_reported_in_the_chat(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, "a", "b" * 9000, "c")
    assert (
        "the context is 8192 and has no room for an answer; use /undo or /reset to continue)" in out
    )
    assert out.endswith(f"> c\n{SHOWN.removeprefix('[analysis]' + chr(10) + 'hm' + chr(10))}")


def test_a_truncated_answer_is_marked_and_kept(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, "a", "/history", arguments=["--max-tokens", "7"])
    assert "(stopped after 7 tokens)" in out
    assert "[user]\na\n[final]\n4\n" in out


def test_escape_sequences_are_shown_not_executed(talk, reciting_lab):
    evil = "\x1b[2J\x1b]0;owned\x07"
    out = talk(reciting_lab(f"<|channel|>final<|message|>{evil}<|return|>"), evil, "/history", evil)
    assert not set(out) & set("\x1b\x07")
    assert out.count("\\x1b[2J\\x1b]0;owned\\x07") >= 6


def test_instructions_are_in_every_conversation(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(
        lab, "/history", "a", "b", "/reset", "c", arguments=["--instructions", "Never say 5."]
    )
    assert out.startswith("> /history\n[developer]\n# Instructions\n\nNever say 5.\n> a\n")
    developer = "<|start|>developer<|message|># Instructions\n\nNever say 5.<|end|><|start|>user"
    assert [developer in seen_by_model(lab, prompt) for prompt in range(3)] == [True] * 3


def test_the_gallery_is_listed_by_number(talk, reciting_lab):
    out = talk(reciting_lab(ANSWER), "/example", "/example 0", "/example x", "/example 999")
    listed = "".join(f"({number:>2}  {each.name})\n" for number, each in enumerate(GALLERY, 1))
    assert out.startswith(f"> /example\n{listed}> /example 0\n")
    assert out.count(f"(/example takes a number from 1 to {len(GALLERY)})") == 3


def test_the_greeting_lists_what_nano_can_do(write_tiny, tiny_config, monkeypatch, capsys):
    folder = write_tiny(config=replace(tiny_config, vocab_size=640))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", str(folder)]) == 0
    assert f"(/example lists questions to try. {ABILITIES})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--effort", "huge"], 2), (["--max-tokens", "0"], 1), (["./no-such-folder"], 1)],
)
def test_a_mistake_is_one_line(arguments, status, capsys):
    assert main(["chat", *arguments]) == status
    output = capsys.readouterr()
    assert (output.out, len(output.err.splitlines())) == ("", 1)


def test_a_closed_input_ends_the_chat(reciting_lab, monkeypatch, capsys):
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: reciting_lab())
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat"]) == 0
    assert capsys.readouterr().err == ""
