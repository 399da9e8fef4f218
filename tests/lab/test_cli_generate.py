"""`oss-lab generate`: streamed channels, one JSON object, plain completion, mistakes."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from oss_lab.checkpoint.read import find_folder
from oss_lab.cli._transcript import Transcript, escape_controls
from oss_lab.cli.main import main
from oss_lab.harmony import Author, Delta, Start

THOUGHT = "<|channel|>analysis<|message|>six sevens<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>42<|return|>"


@pytest.fixture
def call(reciting_lab, monkeypatch, capsys):
    """`call(script, *arguments)`: status, stdout and stderr of `generate` with a reciting model."""

    def run(script, *arguments):
        lab = reciting_lab(script)
        monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: lab)
        status = main(["generate", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def random_nano(write_tiny, tiny_config):
    """The folder of a checkpoint with random weights and nano's vocabulary."""
    return str(write_tiny(config=replace(tiny_config, vocab_size=640)))


def test_channels_are_labeled(call):
    assert call(THOUGHT + ANSWER, "6*7?") == (0, "[analysis]\nsix sevens\n[final]\n42\n", "")


def test_calls_name_their_tool(call):
    script = "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
    note = "(unknown_recipient: unknown recipient 'functions.f')\n"
    assert call(script, "?")[1] == f"{note}[commentary to functions.f]\n{{}}\n"


def test_a_truncated_reply_is_marked(call):
    status, out, _ = call(THOUGHT + ANSWER, "?", "--max-tokens", "20")
    assert status == 0
    assert out.startswith("[analysis]\n")
    assert out.endswith("(stopped after 20 tokens (length))\n")


def test_json(call):
    status, out, err = call(THOUGHT + ANSWER, "6*7?", "--json", "--alternatives", "2")
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    value = json.loads(out)
    assert (value["analysis"], value["final"], value["stop"]) == ("six sevens", "42", "return")
    assert value["messages"] == [
        {"role": "assistant", "content": "six sevens", "channel": "analysis"},
        {"role": "assistant", "content": "42", "channel": "final"},
    ]
    assert (value["tool_calls"], value["diagnostics"]) == ([], [])
    assert "".join(token["text"] for token in value["tokens"]) == THOUGHT + ANSWER
    for token in value["tokens"]:
        assert token["alternatives"][0]["id"] == token["id"]
        assert token["alternatives"][0]["logprob"] == token["logprob"] > -1e-3
        assert len(token["alternatives"]) == 2
    assert value["timing"]["tokens"] == len(value["tokens"])
    assert value["timing"]["tokens_per_second"] > 0
    assert isinstance(value["seed"], int)


def test_json_of_a_single_token_is_json(call):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    out = call(ANSWER, "?", "--json", "--max-tokens", "1")[1]
    assert json.loads(out, parse_constant=refuse)["timing"]["tokens_per_second"] is None


def test_json_reports_calls_and_malformed_streams(call):
    script = "<|channel|>aside to=functions.f<|message|>{}<|call|>"
    value = json.loads(call(script, "?", "--json")[1])
    assert value["tool_calls"] == [{"name": "functions.f", "arguments": "{}", "channel": "aside"}]
    kinds = [each["kind"] for each in value["diagnostics"]]
    assert kinds == ["unknown_channel", "unknown_recipient"]


def test_raw_continues_text(call):
    assert call("and so on<|endoftext|>", "once", "--raw") == (0, "and so on\n", "")
    cut = ("你好<|endoftext|>", "once", "--raw", "--max-tokens", "4")
    status, out, _ = call(*cut, "--json")
    value = json.loads(out)
    assert (status, value["stop"], len(value["tokens"])) == (0, "length", 4)
    assert value["text"].startswith("你")
    assert value["text"].endswith("\ufffd")
    assert call(*cut)[1] == f"{value['text']}\n"


def test_effort_and_budget_reach_the_model(call, reciting_lab, monkeypatch, capsys):
    lab = reciting_lab("<|channel|>analysis<|message|>" + "1234567890" * 4 + "<|return|>")
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: lab)
    assert main(["generate", "?", "--effort", "high", "--analysis-budget", "3"]) == 0
    assert "Reasoning: high" in lab.tokenizer.decode(lab.model.prompts[0])
    assert capsys.readouterr().out.startswith("[analysis]\n123\n[final]\n")


def test_instructions_and_calculator_reach_the_model(reciting_lab, monkeypatch, capsys):
    lab = reciting_lab("<|channel|>commentary to=functions.calculator<|message|>{}<|call|>")
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: lab)
    assert main(["generate", "?", "--instructions", "Be brief.", "--calculator", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stop"] == "call"
    prompt = lab.tokenizer.decode(lab.model.prompts[0])
    assert "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n# Tools" in prompt
    assert "type calculator = (_: {\nexpression: string,\n}) => any;" in prompt
    assert main(["generate", "?"]) == 0
    assert "developer" not in lab.tokenizer.decode(lab.model.prompts[1])


def test_a_seed_reproduces(random_nano, capsys):
    def ids(*arguments):
        common = ["generate", "a", "--json", "--max-tokens", "8", "--model", random_nano]
        assert main([*common, *arguments]) == 0
        value = json.loads(capsys.readouterr().out)
        return [token["id"] for token in value["tokens"]], value["seed"]

    hot = ("--temperature", "5", "--top-k", "50", "--top-p", "0.99", "--min-p", "0.001")
    first, seed = ids(*hot)
    again, same = ids(*hot, "--seed", str(seed))
    assert (again, same) == (first, seed)
    assert ids(*hot, "--seed", str(seed + 1))[0] != first
    assert ids()[0] == ids()[0]  # without a temperature nano is greedy


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["a", "--effort", "huge"], 2, "--effort"),
        (["a", "--seed", "x"], 2, "--seed"),
        (["a", "--seed", "-1"], 1, "seed is -1"),
        (["a", "--temperature", "-1"], 1, "temperature is -1.0"),
        (["a", "--top-k", "3"], 1, "--top-k has no effect at temperature 0"),
        (["a", "--max-tokens", "0"], 1, "--max-tokens is 0; it must be"),
        (["a", "--analysis-budget", "-2"], 1, "analysis_budget is -2"),
        (["a", "--alternatives", "2"], 1, "add --json"),
        (["a", "--json", "--alternatives", "9999"], 1, "alternatives is 9999"),
        (["a", "--raw", "--effort", "low"], 1, "leave --effort out"),
        (["a", "--raw", "--analysis-budget", "0"], 1, "leave --analysis-budget out"),
        (["a", "--raw", "--calculator", "--instructions", ""], 1, "--instructions and --calc"),
        (["", "--raw"], 1, "is empty"),
        (["a" * 40000], 1, "tokens; the context is 8192"),
    ],
)
def test_a_mistake_is_one_line(random_nano, arguments, status, sentence, capsys):
    assert main(["generate", *arguments, "--model", random_nano]) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert sentence in output.err


def test_as_a_program(random_nano, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "oss_lab", "generate", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    done = run("1+1?", "--model", random_nano, "--max-tokens", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["tokens"]) == 3
    done = run("1+1?", "--model", str(tmp_path / "nowhere"))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


@pytest.mark.skipif(
    not (find_folder("nano") / "config.json").exists(), reason="nano's weights are not there yet"
)
@pytest.mark.parametrize(("question", "final"), [("What is 347 * 62?", "21514"), ("12 + 35", "47")])
def test_nano_itself(question, final, capsys):
    assert main(["generate", question, "--effort", "high"]) == 0
    assert capsys.readouterr().out.endswith(f"\n[final]\n{final}\n")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def colors(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_on_a_terminal_channels_differ_in_color_too(colors):
    shown = {}
    for channel in ("analysis", "commentary", "final"):
        terminal = Terminal()
        transcript = Transcript(terminal)
        transcript.show_event(Start(Author("assistant"), channel, None, None, (0, 1)))
        transcript.show_event(Delta("x", channel, None, (1, 2)))
        assert f"[{channel}]" in terminal.getvalue()
        shown[channel] = terminal.getvalue().replace(channel, "")
    assert len(set(shown.values())) == 3
    assert all("\x1b[" in text for text in shown.values())


def test_escape_sequences_in_replies_do_not_reach_a_terminal(colors):
    terminal = Terminal()
    transcript = Transcript(terminal)
    evil = "a\x1b]0;title\x07\x9b31m\r\x08\x7f"
    transcript.show_event(Start(Author("assistant"), evil, evil, None, (0, 1)))
    transcript.show_event(Delta(evil, evil, None, (1, 2)))
    transcript.write_note(evil)
    written = terminal.getvalue()
    assert "\x1b]" not in written
    assert not set(written) & set("\x07\x9b\r\x08\x7f")
    assert "\\x1b]0;title\\x07\\x9b31m\\x0d\\x08\\x7f" in written


def test_without_a_terminal_there_is_no_color(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    plain = io.StringIO()
    transcript = Transcript(plain)
    transcript.show_event(Start(Author("assistant"), "final", None, None, (0, 1)))
    transcript.show_event(Delta("a\x1b[31m[bold]b[/bold]", "final", None, (1, 2)))
    transcript.end_line()
    assert plain.getvalue() == "[final]\na\\x1b[31m[bold]b[/bold]\n"


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("tab\tand\nline, 你好 👩‍🔬", "utf-8", "tab\tand\nline, 你好 👩‍🔬"),
        ("你a", "ascii", "\\u4f60a"),
        ("\udcff", "utf-8", "\\udcff"),
        ("\x00\x85", "utf-8", "\\x00\\x85"),
    ],
)
def test_visible(text, encoding, shown):
    assert escape_controls(text, encoding) == shown
