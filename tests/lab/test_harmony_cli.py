"""`oss-lab harmony render` and `parse`, called by a program."""

import json
import subprocess
import sys

import pytest

from oss_lab.cli.main import main

CONVERSATION = {
    "messages": [
        {"role": "user", "content": "2+2? 你好\u2028🙂"},
        {"role": "assistant", "content": "t", "channel": "analysis"},
        {"role": "assistant", "content": "4", "channel": "final"},
    ]
}


@pytest.fixture
def call(tmp_path, capsys, monkeypatch, vocab_folder):
    """`call("render", value, ..., "--flag")`: writes each value to a file; returns status, lines,
    stderr lines."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))

    def run(tool, *arguments):
        argv = ["harmony", tool]
        for i, argument in enumerate(arguments):
            if isinstance(argument, str):
                argv.append(argument)
            else:
                path = tmp_path / f"{i}.json"
                path.write_text(json.dumps(argument), encoding="utf-8")
                argv.append(str(path))
        status = main(argv)
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


def test_every_golden_rendering_in_one_call(call, golden):
    vectors = golden("harmony_render.json")["vectors"]
    status, lines, errors = call("render", *vectors)
    assert (status, len(lines)) == (0, len(vectors))
    # Two vectors show a quirk: the line names the file by its number.
    warned = [error.partition(".json: ")[0].rpartition("/")[2] for error in errors]
    quirks = ("tool_output_bare", "training_analysis_final_dropped")
    assert warned == [str(i) for i, each in enumerate(vectors) if each["name"] in quirks]
    assert all(error.startswith("oss-lab: warning: ") for error in errors)
    for vector, line in zip(vectors, lines, strict=True):
        value = json.loads(line)
        if vector["error"]:
            assert list(value) == ["error"], vector["name"]
        else:
            assert value == vector["tokens"], vector["name"]


def test_every_golden_stream(call, golden):
    vectors = golden("harmony_stream.json")["vectors"]
    for flag, strict in (("--strict", True), ("--lenient", False)):
        some = [vector for vector in vectors if vector["strict"] is strict]
        status, lines, errors = call("parse", *some, "--library", flag)
        assert (status, errors, len(lines)) == (0, [], len(some))
        for vector, line in zip(some, lines, strict=True):
            value = json.loads(line)
            assert len(value["steps"]) == len(vector["tokens"])
            for step, expected in zip(
                [*value["steps"], value["eos"]], [*vector["steps"], vector["eos"]], strict=True
            ):
                assert step == {key: expected[key] for key in step}, vector["name"]
            assert value["messages"] == vector["messages"], vector["name"]


def test_formats_policies_and_layouts(call):
    data = {"conversation": CONVERSATION, "options": {"mode": "conversation"}}
    _, (ids,), _ = call("render", data)
    _, (text,), _ = call("render", data, "--format", "text")
    _, (notes,), _ = call("render", data, "--format", "annotated")
    assert [note["token"] for note in json.loads(notes)] == json.loads(ids)
    assert set(json.loads(notes)[0]) == {"token", "text", "message", "field", "span", "loss"}
    assert "analysis" not in json.loads(text)
    for flags in (["--keep-analysis"], ["--policy", "keep"], ["--policy", "hf"]):
        assert "analysis" in json.loads(call("render", data, *flags, "--format", "text")[1][0])
    kept = {**data, "options": {"mode": "conversation", "auto_drop_analysis": False}}
    assert "analysis" in json.loads(call("render", kept, "--format", "text")[1][0])
    _, (prompt,), _ = call("render", data, "--mode", "completion", "--format", "text")
    assert json.loads(prompt) == json.loads(text) + "<|start|>assistant"
    _, (training,), _ = call(
        "render", data, "--mode", "training", "--policy", "spec", "--format", "text"
    )
    assert json.loads(training).endswith("<|return|>")
    assert "analysis" in json.loads(training)


CALLED = {"role": "assistant", "content": "{}", "channel": "analysis", "recipient": "functions.f"}
OUTPUT = {"role": "tool", "name": "functions.f", "content": "4", "channel": "commentary"}
ANSWER = CONVERSATION["messages"][-1]


def test_a12_warnings_are_printed_for_each_file(call):
    data = {"conversation": {"messages": [CALLED, OUTPUT, ANSWER]}}
    status, lines, errors = call("render", data, data)
    assert (status, len(lines), len(errors)) == (0, 2, 2)
    for i, error in enumerate(errors):
        assert error.startswith("oss-lab: warning: ")
        assert f"{i}.json: the call to 'functions.f' with '{{}}': policy 'library'" in error
    assert call("render", data, "--policy", "spec")[2] == []
    training = {**data, "options": {"mode": "training"}}
    assert len(call("render", training)[2]) == 2
    assert call("render", data, {"conversation": {}})[2] == errors[:1]


def test_a15_unknown_keys_of_the_wire_format_are_named(call):
    chat = [
        {"role": "user", "content": "hi", "id": "1"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}], "refusal": None},
        {"role": "assistant", "content": "4", "reasoning_content": "hm", "thinking": "hm"},
        {"role": "user", "content": [{"type": "text", "text": "a", "annotations": [1]}], "id": 2},
    ]
    status, (line,), errors = call("render", {"conversation": {"messages": chat}, "options": {}})
    assert status == 0
    assert [error.partition(".json: ")[2] for error in errors] == [
        "messages[0] has the key 'id', which is left out (2 times); correct or remove it",
        "messages[1] has the key 'tool_calls', which is left out; write each call as a message"
        " with a `recipient`",
        "messages[2] has the key 'reasoning_content', which is left out; write it as a message on"
        " the channel 'analysis'",
        "messages[2] has the key 'thinking', which is left out; write it as a message on the"
        " channel 'analysis'",
        "messages[3].content[0] has the key 'annotations', which is left out; correct or remove it",
    ]
    wire = ("role", "content")
    known = [{key: value for key, value in each.items() if key in wire} for each in chat[:3]]
    known.append({"role": "user", "content": "a"})
    assert call("render", {"conversation": {"messages": known}})[1] == [line]


def test_a15_unknown_keys_are_named_wherever_they_are(call):
    tool = {"name": "f", "description": "", "parameters": {"any": 1}, "strict": True}
    space = {"name": "functions", "tools": [tool], "tool": 1}
    channels = {"valid_channels": ["final"], "channel_required": True, "required": False}
    system = {"type": "system_content", "date": "today", "channel_config": channels}
    answer = {"name": "a", "schema": {"any": 1}, "strict": True}
    developer = {
        "type": "developer_content",
        "tools": {"functions": space},
        "response_formats": [answer],
        "instruction": "be brief",
    }
    data = {
        "conversation": {
            "messages": [
                {"role": "system", "content": [system]},
                {"role": "developer", "content": [developer]},
            ],
            "message": [1],
        },
        "options": {"mod": "training"},
    }
    status, _, errors = call("render", data)
    assert status == 0
    named = [error.partition(".json: ")[2].partition(", which")[0] for error in errors]
    assert named == [
        "there is no option 'mod'; it is left out",
        "conversation has the key 'message'",
        "messages[0].content[0] has the key 'date'",
        "messages[0].content[0].channel_config has the key 'required'",
        "messages[1].content[0] has the key 'instruction'",
        "messages[1].content[0].tools.functions has the key 'tool'",
        "messages[1].content[0].tools.functions.tools[0] has the key 'strict'",
    ]


def test_a15_content_null_is_named(call):
    status, _, (error,) = call(
        "render", {"conversation": {"messages": [{"role": "assistant", "content": None}]}}
    )
    assert status == 1
    assert "messages[0].content is null" in error
    assert "convert_messages" in error


def test_layout_flag(call):
    message = {"role": "assistant", "content": "x", "channel": "commentary", "recipient": "f"}
    data = {"conversation": {"messages": [message]}, "options": {"mode": "message"}}
    begun = "<|start|>assistant"
    for flags, header in (
        ([], " to=f<|channel|>commentary"),
        (["--layout", "model"], "<|channel|>commentary to=f"),
    ):
        _, (text,), _ = call("render", data, *flags, "--format", "text")
        assert json.loads(text) == f"{begun}{header}<|message|>x<|call|>"


def test_events_with_diagnostics(call):
    final = [200005, 17196, 200008, 33680, 13, 200002]
    data = {"role": "assistant", "tokens": [*final, 200007, -1]}
    status, (line,), errors = call("parse", data, "--format", "events")
    value = json.loads(line)
    assert (status, errors) == (0, [])
    kinds = [event["event"] for event in value["events"]]
    assert kinds == [*["header"] * 2, "start", "delta", "delta", "end", *["diagnostic"] * 2]
    assert value["events"][3] == {
        "event": "delta",
        "text": "Sorry",
        "channel": "final",
        "recipient": None,
        "tokens": [3, 4],
    }
    assert value["events"][6]["kind"] == "unexpected_stop"
    assert value["messages"] == [{"role": "assistant", "content": "Sorry.", "channel": "final"}]
    status, (line,), _ = call("parse", data, "--format", "events", "--strict")
    assert status == 0
    assert json.loads(line)["events"][-1] == {
        "event": "error",
        "message": "token 6: unexpected_stop: <|return|> between messages; skipped".replace(
            "return", "end"
        ),
    }


def test_steps_of_our_parser(call):
    data = {"tokens": [200006, 1428, 200008, 65, 4294967295, 2**40, 200007, 65]}
    status, (line,), _ = call("parse", data)
    value = json.loads(line)
    assert status == 0
    states = [step["state"] for step in value["steps"]]
    assert states == ["Header", "Header", *["Content"] * 4, "ExpectStart", "ExpectStart"]
    errors = [step["error"] and step["error"]["type"] for step in value["steps"]]
    assert errors[4:6] == ["unknown_token", "unknown_token"]
    assert errors[7] == "text_between_messages"
    assert value["messages"][0]["content"] == "b\ufffd\ufffd"


@pytest.mark.parametrize("format", ["steps", "events"])
def test_a16_strict_stops_at_the_first_error_in_every_format(call, format):
    tokens = [200005, 17196, 200008, 65, 200007, 200007, 65, 65]
    data = {"role": "assistant", "tokens": tokens}
    lenient = json.loads(call("parse", data, "--format", format)[1][0])
    status, (line,), errors = call("parse", data, "--format", format, "--strict")
    value = json.loads(line)
    assert (status, errors) == (0, [])
    assert value[format][-1] != lenient[format][-1]
    assert len(value[format]) < len(lenient[format])
    assert [message["content"] for message in value["messages"]] == ["b"]
    if format == "steps":
        assert len(value["steps"]) == 6
        assert value["eos"] is None
        assert value["steps"][-1]["error"]["type"] == "unexpected_stop"
        assert lenient["steps"][-1]["error"] is None


def test_a16_strict_reports_an_error_at_the_end_of_the_stream(call):
    data = {"role": "assistant", "tokens": [200005, 17196, 200008, 65]}
    value = json.loads(call("parse", data, "--strict")[1][0])
    assert [step["error"] for step in value["steps"]] == [None] * 4
    assert value["eos"]["error"]["type"] == "unfinished_message"


def test_a8_declared_tools_and_channels_of_a_stream(call):
    stream = [200005, 12606, 815, 316, 28, 44580, 1196, 200008, 12083, 200012]  # to=functions.f
    for given, kinds in (
        ({}, []),
        ({"recipients": ["functions.f"]}, []),
        ({"recipients": ["functions.g"]}, ["unknown_recipient"]),
        ({"recipients": []}, ["unknown_recipient"]),
        ({"channels": ["analysis", "final"]}, ["unknown_channel"]),
        ({"channels": []}, []),
    ):
        data = {"role": "assistant", "tokens": stream, **given}
        events = json.loads(call("parse", data, "--format", "events")[1][0])["events"]
        assert [each["kind"] for each in events if each["event"] == "diagnostic"] == kinds, given
        steps = json.loads(call("parse", data)[1][0])["steps"]
        errors = [step["error"]["type"] for step in steps if step["error"]]
        assert errors == kinds, given


@pytest.mark.parametrize("space", [" ", "\u3000", "\t"])
def test_a17_text_that_the_tokenizer_cannot_encode_is_one_line(call, space):
    big = {"messages": [{"role": "user", "content": space * 1_000_100}]}
    status, lines, errors = call(
        "render", {"conversation": big}, {"conversation": CONVERSATION}, "--vocabulary", "nano"
    )
    assert (status, errors, len(lines)) == (0, [], 2)
    assert "1,000,100 white-space characters in a row" in json.loads(lines[0])["error"]
    assert isinstance(json.loads(lines[1]), list)
    status, lines, errors = call("render", {"conversation": big})
    assert (status, lines, len(errors)) == (1, [], 1)


def test_invalid_ids_are_data_for_the_library_too(call):
    status, (line,), _ = call("parse", {"tokens": [-1, 2**32, 2**64]}, "--library")
    assert status == 0
    types = [step["error"]["type"] for step in json.loads(line)["steps"]]
    assert types == ["OverflowError"] * 3


@pytest.mark.parametrize(
    ("tool", "value", "sentence"),
    [
        ("parse", [], "expected an object with `tokens`"),
        ("parse", {"tokens": 5}, "`tokens` must be a list of integers, not int"),
        ("parse", {"tokens": [1, True]}, "tokens[1] is true"),
        ("parse", {"tokens": [1, 2.0]}, "tokens[1] is 2.0"),
        ("parse", {"tokens": [[1]]}, "tokens[0] is [1]"),
        ("parse", {"tokens": [], "role": "bob"}, "unknown role 'bob'"),
        ("parse", {"tokens": [], "role": 5}, "`role` must be of type str, not int"),
        ("parse", {"tokens": [], "recipients": "f"}, "`recipients` must be of type list, not str"),
        ("parse", {"tokens": [], "recipients": [5]}, "`recipients` must be a list of strings"),
        ("parse", {"tokens": [], "channels": [None]}, "`channels` must be a list of strings"),
        ("parse", {"tokens": "42"}, "`tokens` must be a list of integers, not str"),
        ("render", 5, "expected an object with `conversation`"),
        ("render", {"conversation": {}}, "conversation is missing the field `messages`"),
        ("render", {"conversation": CONVERSATION, "options": []}, "`options` must be of type"),
        (
            "render",
            {"conversation": CONVERSATION, "options": {"mode": "x"}},
            "unknown mode 'x'",
        ),
        (
            "render",
            {"conversation": CONVERSATION, "options": {"next_turn_role": "bob"}},
            "unknown role 'bob'",
        ),
    ],
)
def test_a_mistake_is_one_line(call, tool, value, sentence):
    status, lines, errors = call(tool, value)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert errors[0].startswith("oss-lab: ")
    assert sentence in errors[0]
    good = {"tokens": []} if tool == "parse" else {"conversation": CONVERSATION}
    status, lines, errors = call(tool, value, good)
    assert (status, errors, len(lines)) == (0, [], 2)
    assert sentence in json.loads(lines[0])["error"]


def test_files_that_cannot_be_read(call, tmp_path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (tmp_path / "latin.json").write_bytes(b'"\xff"')
    (tmp_path / "nan.json").write_text('{"tokens": [NaN]}', encoding="utf-8")
    files = ("missing", "bad", "deep", "latin", "nan")
    names = [str(tmp_path / f"{name}.json") for name in files]
    status, lines, errors = call("parse", *names)
    assert (status, errors) == (0, [])
    sentences = [json.loads(line)["error"] for line in lines]
    for name, sentence, words in zip(
        names,
        sentences,
        ("No such file", "not JSON", "nested too", "not UTF-8", "NaN is not a JSON value"),
        strict=True,
    ):
        assert sentence.startswith(f"{name}: ")
        assert words in sentence
        status, lines, errors = call("parse", name)
        assert (status, lines, errors) == (1, [], [f"oss-lab: {sentence}"])


def test_the_library_has_no_events(call):
    status, lines, errors = call("parse", {"tokens": []}, "--library", "--format", "events")
    assert (status, lines, len(errors)) == (1, [], 1)


@pytest.mark.parametrize(
    "argv", [["harmony"], ["harmony", "render"], ["harmony", "parse", "x", "--policy"]]
)
def test_usage_errors_are_one_line(argv, capsys):
    assert main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_torch_is_imported():
    code = "import sys, oss_lab.cli.harmony; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
