"""`oss-lab chat`: leaving, several lines, /system, /save and /load, /verbose, and long chats."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from oss_lab.checkpoint.read import find_folder
from oss_lab.cli._transcript import Transcript
from oss_lab.cli.main import main
from oss_lab.nano.turn_limit import TurnLimit, compute_turn_limit, find_turn_limit

ANSWER = "<|channel|>final<|message|>42<|return|>"
THOUGHT = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
CALL = "<|channel|>commentary to=functions.calculator<|message|>{}<|call|>"
DECLARED = ["--tools", "calculator", "--calls", "0"]
LIMIT = TurnLimit(turns=2, alone=0.97, next=0.84, last=0.67, last_turn=12)


def seen_by_model(lab, prompt):
    return lab.tokenizer.decode(lab.model.prompts[prompt])


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit", "exit", "quit", "EXIT"])
def test_d7_every_usual_word_leaves(talk, reciting_lab, word):
    lab = reciting_lab(ANSWER)
    assert talk(lab, word, "not reached") == f"> {word}\n"
    assert lab.model.prompts == []


def test_d7_leaving_works_while_a_call_waits_and_the_note_says_so(talk, reciting_lab):
    lab = reciting_lab(CALL)
    out = talk(lab, "6*7?", "exit", "not reached")
    assert "type its output, or /undo to drop your last message, or /bye to leave)\n> exit\n" in out
    assert len(lab.model.prompts) == 1


@pytest.mark.parametrize("effort", ["extreme", "LOW", "low high", '"""low\nhigh"""'])
def test_d7_an_unknown_effort_is_refused(talk, reciting_lab, effort):
    lab = reciting_lab(ANSWER)
    out = talk(lab, f"/effort {effort}", "a")
    assert "(there is no effort " in out
    assert "/effort takes low, medium, high (it is still medium))" in out
    assert "Reasoning: medium" in seen_by_model(lab, 0)


def test_d7_a_question_of_several_lines(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, '"""add', "  1", "", '2"""', '"""', "b", '"""', 'c "quoted" """text')
    assert out.startswith('> """add\n...   1\n... \n... 2"""\n[final]\n')
    for number, text in enumerate(("add\n  1\n\n2", "b", 'c "quoted" """text')):
        assert f"<|start|>user<|message|>{text}<|end|>" in seen_by_model(lab, number)


@pytest.mark.parametrize(
    ("typed", "text"), [("//etc/fstab", "/etc/fstab"), ('"""/help"""', "/help"), ("///", "//")]
)
def test_d7_a_text_can_begin_with_a_slash(talk, reciting_lab, typed, text):
    lab = reciting_lab(ANSWER)
    talk(lab, typed)
    assert f"<|start|>user<|message|>{text}<|end|>" in seen_by_model(lab, 0)


def test_d7_a_text_without_its_closing_quotes_is_not_sent(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, '"""add', "1")
    assert out.endswith('(the text was not sent: its closing """ is missing)\n')
    assert lab.model.prompts == []


def test_d7_system_starts_a_conversation_with_instructions(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    typed = (
        "/system",
        "a",
        "/system Never say 5.",
        "b",
        "/system",
        "/reset",
        "c",
        "/system -",
        "d",
    )
    out = talk(lab, *typed, "/system")
    assert out.count("(there are no instructions; set some with /system TEXT)") == 2
    assert "(the instructions are: Never say 5.)" in out
    rule = "<|start|>developer<|message|># Instructions\n\nNever say 5.<|end|><|start|>user"
    assert [rule in seen_by_model(lab, n) for n in range(4)] == [False, True, True, False]
    assert "<|message|>a<|end|>" not in seen_by_model(lab, 1)


def test_d7_system_keeps_the_tools_and_may_have_several_lines(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    talk(lab, '/system """be', 'brief"""', "a", arguments=DECLARED)
    assert "# Instructions\n\nbe\nbrief\n\n# Tools" in seen_by_model(lab, 0)
    assert "type calculator" in seen_by_model(lab, 0)


def test_d7_verbose_adds_one_line_per_reply(talk, reciting_lab):
    lab = reciting_lab(ANSWER)
    out = talk(lab, "a", "/verbose", "b", "/verbose", "c")
    assert out.count(" tokens per second; prompt of ") == 1
    count = len(lab.tokenizer.encode(ANSWER, allowed_special="all"))
    assert f"({count} tokens in " in out


def test_d7_a_saved_chat_continues_where_it_was(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    lab = reciting_lab(THOUGHT + ANSWER)
    talk(lab, "/effort high", "/system Be brief.", "a", "b", f"/save {file}", "c")
    other = reciting_lab(THOUGHT + ANSWER)
    out = talk(other, "x", f"/load {file}", "c", "/undo", "/undo", "/undo", "/undo", "d")
    assert f"(loaded 2 turns from {file}, effort high; /history shows them)" in out
    assert other.model.prompts[1] == lab.model.prompts[2]
    assert out.count("(removed the last turn)") == 3
    assert "Be brief." in seen_by_model(other, 2)
    assert "<|message|>a<|end|>" not in seen_by_model(other, 2)


def test_d7_the_tokens_of_a_reply_are_saved(talk, reciting_lab, tmp_path):
    """Three ids that decode to `abc` must not become the one id that `abc` is encoded to."""
    file = tmp_path / "chat.json"
    lab = reciting_lab("<|channel|>final<|message|>", *b"abc", "<|return|>")
    talk(lab, "a", f"/save {file}", "b")
    other = reciting_lab(ANSWER)
    talk(other, f"/load {file}", "b")
    assert other.model.prompts[0] == lab.model.prompts[1]
    assert json.loads(file.read_text())["turns"][0]["reply"][0]["ids"] == list(b"abc")


def test_d7_an_open_call_is_saved_too(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    talk(
        reciting_lab(CALL),
        "6*7?",
        f"/save {file}",
        arguments=DECLARED,
    )
    lab = reciting_lab(ANSWER)
    out = talk(lab, f"/load {file}", "42")
    assert "the model calls functions.calculator with {}" in out
    assert (
        "<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>42<|end|>"
        in (seen_by_model(lab, 0))
    )


def test_d7_an_open_call_before_an_invented_output_is_saved_too(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    call = CALL.replace("<|call|>", "<|end|>")
    invented = f"{call}<|start|>functions.calculator to=assistant<|channel|>commentary<|message|>4"
    asked = talk(reciting_lab(invented), "6*7?", f"/save {file}", "/undo")
    out = talk(reciting_lab(ANSWER), f"/load {file}")
    assert "the model calls functions.calculator" in asked
    assert "the model calls functions.calculator" in out
    file.write_text(file.read_text().replace('"unfinished": false', '"unfinished": 1'))
    out = talk(reciting_lab(ANSWER), f"/load {file}")
    assert "turn 1: `unfinished` must be true or false" in out


def test_d7_save_replaces_a_file_only_if_told_to(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    file.write_text("mine")
    out = talk(reciting_lab(ANSWER), f"/save {file}")
    assert f"({file} exists; choose another name, or replace it with /save! {file})" in out
    assert file.read_text() == "mine"
    out = talk(reciting_lab(ANSWER), "a", f"/save! {file}")
    assert f"(saved 1 turn in {file}, replacing the old file)" in out
    assert list(tmp_path.iterdir()) == [file]


def test_d7_save_is_atomic(talk, reciting_lab, tmp_path, monkeypatch):
    file = tmp_path / "chat.json"
    file.write_text("mine")

    def fill(path, text, **_):
        with path.open("w") as half:
            half.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    out = talk(reciting_lab(ANSWER), "a", f"/save! {file}", "/history")
    assert f"({file}: No space left on device)" in out
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    assert "[user]\na\n" in out


def save_chat(talk, lab, file):
    talk(lab, "a", f"/save {file}")
    return json.loads(file.read_text())


DEFECTS = {
    "not a chat": lambda data: {"messages": []},
    "a list": lambda data: [],
    "a later version": lambda data: data | {"oss_lab_chat": 2},
    "effort": lambda data: data | {"effort": "extreme"},
    "no turns": lambda data: {k: v for k, v in data.items() if k != "turns"},
    "a turn of another type": lambda data: data | {"turns": [1]},
    "no reply": lambda data: data | {"turns": [{"prompt": [], "stop": "return"}]},
    "unknown stop": lambda data: data | {"turns": [{"prompt": [], "reply": [], "stop": "x"}]},
    "unknown role": lambda data: data | {"opening": [{"role": "x", "content": ""}]},
    "a message of another type": lambda data: data | {"opening": [3]},
    "ids of another type": lambda data: (
        data | {"opening": [{"role": "user", "content": "a", "ids": ["b"]}]}
    ),
    "ids of no text": lambda data: data | {"opening": [data["opening"][0] | {"ids": [1]}]},
    "a channel that cannot be read back": lambda data: (
        data | {"opening": [{"role": "assistant", "channel": "a b", "content": "x"}]}
    ),
    "a role as recipient": lambda data: (
        data | {"opening": [{"role": "assistant", "recipient": "system", "content": "x"}]}
    ),
    "outputs of another type": lambda data: data | {"tool_outputs": {"{}": 3}},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_d7_a_wrong_file_is_one_sentence_and_changes_nothing(talk, reciting_lab, tmp_path, defect):
    file = tmp_path / "chat.json"
    data = save_chat(talk, reciting_lab(ANSWER), file)
    file.write_text(json.dumps(DEFECTS[defect](data)))
    refuse(talk, reciting_lab(ANSWER), file)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[" * 100_000, b"\x80\x04pickle", b"NaN"])
def test_d7_a_file_that_is_not_json_is_one_sentence(talk, reciting_lab, tmp_path, content):
    file = tmp_path / "chat.json"
    file.write_bytes(content)
    refuse(talk, reciting_lab(ANSWER), file)


def refuse(talk, lab, file):
    out = talk(lab, "kept", f"/load {file}", "/history")
    error = out.split(f"> /load {file}\n")[1].split("\n> ")[0]
    assert error.startswith(f"({file}: ")
    assert "\n" not in error
    assert "[user]\nkept\n" in out


def test_d7_a_loaded_file_may_have_unknown_keys(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    data = save_chat(talk, reciting_lab(ANSWER), file)
    data["opening"].append({"role": "developer", "content": "Be short.", "tool_calls": [1]})
    file.write_text(json.dumps(data))
    out = talk(reciting_lab(ANSWER), f"/load {file}", "b")
    assert "(warning: messages[1] has the key 'tool_calls', which is left out; write" in out
    assert out.endswith("> b\n[final]\n42\n")


def test_d7_a_schema_of_any_depth_is_refused(talk, reciting_lab, tmp_path):
    file = tmp_path / "chat.json"
    data = save_chat(talk, reciting_lab(ANSWER), file)
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"name": "f", "description": "", "parameters": schema}
    functions = {"functions": {"name": "functions", "tools": [tool]}}
    content = {"type": "developer_content", "tools": functions}
    data["opening"].append({"role": "developer", "content": [content]})
    file.write_text(json.dumps(data))
    refuse(talk, reciting_lab(ANSWER), file)
    out = talk(reciting_lab(ANSWER), f"/load {file}", "c")
    assert "the schema of tool 'f' is nested too deeply)" in out
    assert out.endswith("> c\n[final]\n42\n")


def test_d7_standard_input_is_not_a_file_to_load(talk, reciting_lab):
    out = talk(reciting_lab(ANSWER), "/load -", "/save -", "a")
    assert "(/load needs the name of a file" in out
    assert "(/save needs the name of a file" in out
    assert out.endswith("> a\n[final]\n42\n")


def test_d7_save_and_load_name_what_is_missing(talk, reciting_lab, tmp_path):
    gone = tmp_path / "gone" / "chat.json"
    out = talk(
        reciting_lab(ANSWER),
        "/save",
        "/load",
        f"/load {gone}",
        f"/save {gone}",
        f"/save {tmp_path}",
    )
    assert "(/save needs the name of a file, such as /save chat.json)" in out
    assert "(/load needs the name of a file, such as /load chat.json)" in out
    assert f"({gone}: No such file or directory)" in out
    assert f"({gone.parent} is not a folder; create it first" in out
    assert f"({tmp_path} is a folder;" in out


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("width", [20, 60, 80])
def test_d7_notices_break_between_words(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    text = "nano learned products of up to three by two digits, 九 times 乘法, and short lists."
    terminal = Terminal()
    Transcript(terminal).write_note(text)
    lines = re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert " ".join(lines) == f"({text})"
    assert max(map(len, lines)) <= width
    plain = io.StringIO()
    Transcript(plain).write_note(text * 5)
    assert plain.getvalue() == f"({text * 5})\n"


def test_d6_a_long_conversation_is_announced_once(talk, reciting_lab, monkeypatch):
    monkeypatch.setattr("oss_lab.nano.turn_limit.find_turn_limit", lambda lab: LIMIT)
    out = talk(reciting_lab(ANSWER), "a", "b", "c", "d", "/help", "/reset", "e", "f", "g")
    warning = f"(this is question 3; {LIMIT.sentence}; /reset starts a new one)\n"
    assert out.count(warning) == 2
    assert f"> c\n{warning}[final]\n" in out
    assert f"({LIMIT.sentence})" in out  # in /help
    assert "this is question" not in talk(reciting_lab(ANSWER), "a", "b", "/undo", "c")


def test_d6_other_models_have_no_limit(talk, reciting_lab):
    out = talk(reciting_lab(ANSWER), *"abcdefgh", "/help")
    assert "worse in a long conversation" not in out


def test_d6_the_limit_is_computed_from_the_findings(nano):
    found = json.loads((find_folder("nano") / "findings.json").read_text())
    turns = found["turns"]
    limit = find_turn_limit(nano)
    assert limit is not None
    lost = [each["accuracy"]["difference"] for each in turns]
    assert max(lost[: limit.turns]) < 0.1 <= lost[limit.turns]
    assert limit.next == turns[limit.turns]["accuracy"]["second"]["value"]
    assert (limit.last_turn, limit.last) == (12, turns[-1]["accuracy"]["second"]["value"])
    assert {each["accuracy"]["second"]["n"] for each in turns} == {found["n"]}
    assert compute_turn_limit(turns[: limit.turns]) is None
    assert compute_turn_limit([]) is None


def test_d6_greeting_and_readme_say_it(nano, monkeypatch, capsys):
    limit = find_turn_limit(nano)
    assert limit is not None
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: nano)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat"]) == 0
    assert f"But {limit.sentence}." in capsys.readouterr().out
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert limit.sentence in " ".join(readme.split())
