"""Training examples: conversations become tokens and a mask; each defect names its line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oss_lab.config import GPT_OSS_NANO
from oss_lab.errors import HarmonyWarning, LabError
from oss_lab.finetune.examples import Example, read_examples
from oss_lab.finetune.recipe import make_recipe
from oss_lab.finetune.run import finetune
from oss_lab.record.token_labels import decode_tokens
from oss_lab.tokenizer import load_vocabulary

USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "reasoning_content": "add", "content": "4"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
WITH_CALL = [
    USER,
    {"role": "assistant", "content": None, "reasoning_content": "call", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "4"},
    {"role": "assistant", "content": "It is 4."},
]


@pytest.fixture(scope="module")
def encoding():
    return load_vocabulary("nano")


def read(data: Any, encoding, **settings: Any) -> list[Example]:
    return read_examples(data, encoding, make_recipe(GPT_OSS_NANO, **settings), "low")


def learned_text(messages: Sequence[Any], encoding, **settings: Any) -> str:
    """What counts in the loss, as text; a bar is between pieces."""
    [example] = read([{"messages": messages, "tools": TOOLS}], encoding, length=512, **settings)
    runs, last = list[list[int]](), False
    for token, learned in zip(example.tokens, example.learned, strict=True):
        if learned:
            if not last:
                runs.append([])
            runs[-1].append(token)
        last = learned
    return " | ".join(decode_tokens(encoding, run) for run in runs)


def test_everything_that_the_assistant_writes_is_learned(encoding) -> None:
    assert learned_text([USER, ANSWER], encoding) == (
        "<|channel|>analysis<|message|>add<|end|>"
        "<|start|>assistant<|channel|>final<|message|>4<|return|>"
    )
    assert learned_text(WITH_CALL, encoding) == (
        "<|channel|>analysis<|message|>call<|end|><|start|>assistant<|channel|>commentary"
        " to=functions.add <|constrain|>json<|message|>{}<|call|>"
        " | <|channel|>final<|message|>It is 4.<|return|>"
    )


def test_channels_and_roles_are_chosen(encoding) -> None:
    final = "<|start|>assistant<|channel|>final<|message|>4<|return|>"
    assert learned_text([USER, ANSWER], encoding, channels="final") == final
    assert learned_text([USER, ANSWER], encoding, roles="user") == "<|message|>2+2?<|end|>"
    call = learned_text(WITH_CALL, encoding, channels=["commentary"])
    assert call.startswith("<|start|>assistant<|channel|>commentary")
    assert call.endswith("{}<|call|>")


def test_an_earlier_turn_without_its_reasoning_is_not_learned(encoding) -> None:
    text = learned_text([USER, ANSWER, USER, ANSWER], encoding)
    assert text.count("final") == 1
    plain = {"role": "assistant", "content": "4"}
    assert learned_text([USER, plain, USER, ANSWER], encoding).count("final") == 2


def test_thinking_is_reasoning_and_effort_is_per_line(encoding) -> None:
    thinking = {"role": "assistant", "thinking": "add", "content": "4"}
    nothing = USER | {"thinking": None}
    [one] = read([{"messages": [nothing, thinking]}], encoding)
    [other] = read([{"messages": [USER, ANSWER]}], encoding)
    assert one == other
    [high] = read([{"messages": [USER, ANSWER], "effort": "high"}], encoding)
    assert "Reasoning: high" in decode_tokens(encoding, high.tokens)


def test_what_a_rendering_leaves_out_is_a_warning_with_its_line(encoding) -> None:
    named = {"messages": [USER | {"name": "Ada"}, ANSWER]}
    with pytest.warns(HarmonyWarning) as seen:
        read([named, named], encoding)
    [warning] = seen
    assert str(warning.message).startswith("examples[0]: left out, because")
    assert str(warning.message).endswith("(and 1 more like it)")


GOOD = json.dumps({"messages": [USER, ANSWER]})
LINES = {
    "invalid JSON": ([GOOD] * 6 + ["{"], "data.jsonl, line 7 is not JSON"),
    "not an object": (["[]"], "line 1 does not contain a JSON object"),
    "no messages": (["{}"], "line 1: the example has no messages"),
    "messages of another type": (['{"messages": "hi"}'], "line 1: messages must be a list"),
    "an unknown field": ([GOOD, GOOD[:-1] + ', "a": 1}'], "line 2: the example has an unknown"),
    "no message": (['{"messages": []}'], "line 1: the list of messages is empty"),
    "a wrong role": (
        [GOOD, "", json.dumps({"messages": [{"role": "bot", "content": "x"}]})],
        "line 3: messages[0].role is 'bot'; use one of",
    ),
    "a missing field": (
        [json.dumps({"messages": [{"role": "user"}]})],
        "line 1: messages[0] is missing the field `content`",
    ),
    "a wrong effort": ([GOOD[:-1] + ', "effort": "max"}'], "line 1: effort is 'max'"),
    "wrong tools": ([GOOD[:-1] + ', "tools": [{}]}'], "line 1: tools[0] is missing the field"),
    "two kinds of reasoning": (
        [json.dumps({"messages": [USER, ANSWER | {"thinking": "x"}]})],
        "line 1: a message has both `thinking` and `reasoning_content`",
    ),
    "20,000 tokens": (
        [GOOD, json.dumps({"messages": [USER | {"content": "7" * 20_000}, ANSWER]})],
        "tokens, and a row has 256",
    ),
    "nothing to learn": ([json.dumps({"messages": [USER]})], "line 1: the example has nothing to"),
    "an empty file": ([], "data.jsonl has no examples"),
    "blank lines": (["", "  "], "data.jsonl has no examples"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_malformed_file_is_one_sentence_and_nothing_is_written(case, tmp_path: Path) -> None:
    lines, said = LINES[case]
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(LabError) as caught:
        finetune("nano", file, tmp_path / "out")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_list_of_examples_has_numbers_instead_of_lines(encoding) -> None:
    with pytest.raises(LabError, match=r"^examples\[1\]: the example has no messages"):
        read([json.loads(GOOD), {}], encoding)
    with pytest.raises(LabError, match=r"examples\[0\] must be a dictionary, not str"):
        read(["x"], encoding)
    with pytest.raises(LabError, match="the list of examples has no examples"):
        read([], encoding)
