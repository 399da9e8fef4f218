"""Files of questions: the user's own, and the public formats of AIME, GPQA and MMLU."""

import json

import pytest

from oss_lab.errors import LabError
from oss_lab.evaluation import aime, gpqa, jsonl, mmlu
from oss_lab.evaluation.grade import Boxed, Choice
from oss_lab.harmony.messages import DeveloperContent, Message, SystemContent
from oss_lab.nano import suite
from oss_lab.record.reply import ToolCall


@pytest.fixture
def write(tmp_path):
    """`write("f.jsonl", text_or_bytes)`: writes a file and returns its path."""

    def make(name, contents):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return make


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def is_correct(question, final):
    return question.is_right([Message.of("assistant", final, channel="final")])


# The user's own files


def test_jsonl(write):
    tool = {"name": "add", "description": "adds", "parameters": {"type": "object"}, "result": "9"}
    text = "\ufeff" + lines(
        {"prompt": "6*7?", "answer": 42},
        {"prompt": "capital?", "answer": "Oslo", "name": "towns", "developer": "One word."},
    )
    text += "\r\n  \n" + lines({"prompt": "4+5?", "answer": "9", "tools": [tool, {"name": "off"}]})
    first, second, third = jsonl.read_jsonl(write("mine.jsonl", text))
    assert (first.name, second.name, third.name) == ("mine", "towns", "mine")
    assert is_correct(first, "It is 42.")
    assert not is_correct(first, "It is 43.")
    system, user = first.prompt("low").messages
    assert system.content == (SystemContent(reasoning_effort="low"),)
    assert (user.role, user.text) == ("user", "6*7?")
    _, developer, _ = second.prompt("high").messages
    assert developer.content == (DeveloperContent("One word."),)
    _, developer, _ = third.prompt("high").messages
    (content,) = developer.content
    assert isinstance(content, DeveloperContent)
    assert content.tools is not None
    assert [each.name for each in content.tools["functions"].tools] == ["add", "off"]
    assert third.tool_output(ToolCall("functions.add", '{"any": 1}', "commentary")) == "9"
    assert third.tool_output(ToolCall("functions.off", "{}", "commentary")) is None
    assert third.tool_output(ToolCall("add", "{}", "commentary")) is None


def test_only_a_final_after_the_last_output_counts(write):
    (question,) = jsonl.read_jsonl(write("f.jsonl", lines({"prompt": "?", "answer": "9"})))
    early = Message.of("assistant", "9", channel="final")
    output = Message.of("tool", "9", name="functions.add")
    aside = Message.of("assistant", "9", channel="commentary")
    thought = Message.of("assistant", "9", channel="analysis")
    assert question.is_right([thought, early])
    assert question.is_right([output, early])
    assert not question.is_right([early, output, thought, aside])
    assert not question.is_right([])


GOOD = {"prompt": "6*7?", "answer": 42}


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ("", "has no questions"),
        ("\n \n", "has no questions"),
        (lines(GOOD) + "{", "line 2 is not JSON"),
        (lines(GOOD, [1]), "line 2 does not contain a JSON object"),
        (lines(GOOD).encode() + b'{"prompt": "\xff", "answer": 1}', "line 2 is not JSON"),
        ('{"prompt": "a", "prompt": "b", "answer": 1}', "line 1 names prompt twice"),
        ("[" * 100_000, "line 1 is not JSON"),
        (lines({"answer": 42}), "line 1: the question has no prompt"),
        (lines({"prompt": "?"}), "line 1: the question has no answer"),
        (lines(GOOD | {"tool": []}), "unknown field 'tool'; the known fields are prompt,"),
        (lines(GOOD | {"\x1b[31m": 1}), r"'\\x1b[31m'"),
        (lines(GOOD | {"prompt": " "}), "prompt must be a non-empty string"),
        (lines(GOOD | {"prompt": ["?"]}), "prompt must be a non-empty string"),
        (lines(GOOD | {"prompt": "\ud800"}), "half of a surrogate pair"),
        (lines(GOOD | {"answer": ""}), "answer must be a number"),
        (lines(GOOD | {"answer": True}), "answer must be a number"),
        (lines(GOOD | {"answer": None}), "answer must be a number"),
        ('{"prompt": "?", "answer": NaN}', "answer must be a number"),
        ('{"prompt": "?", "answer": 1e999}', "answer must be a number"),
        (lines(GOOD | {"developer": 1}), "developer must be a string"),
        (lines(GOOD | {"name": 1}), "name must be a string"),
        (lines(GOOD | {"tools": {}}), "tools must be a list"),
        (lines(GOOD | {"tools": ["f"]}), "tools[0] is not an object"),
        (lines(GOOD | {"tools": [{}]}), "tools[0] needs a name"),
        (lines(GOOD | {"tools": [{"name": "a b"}]}), "tools[0] needs a name"),
        (lines(GOOD | {"tools": [{"name": "f"}, {"name": "f"}]}), "two tools are called f"),
        (lines(GOOD | {"tools": [{"name": "f", "result": 9}]}), "tools[0].result must be a string"),
        (lines(GOOD | {"tools": [{"name": "f", "parameters": "x"}]}), "tools[0].parameters must"),
        (
            lines(GOOD | {"tools": [{"name": "f", "code": "x"}]}),
            "tools[0] has an unknown field 'code'",
        ),
    ],
)
def test_jsonl_defects(write, contents, sentence):
    path = write("mine.jsonl", contents)
    with pytest.raises(LabError) as raised:
        jsonl.read_jsonl(path)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith(f"{path}")


# AIME


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (
            "a.jsonl",
            lines({"question": "Q, x", "answer": "70"}, {"question": "R", "answer": "042"}),
        ),
        (
            "a.jsonl",
            lines({"ID": "1", "Problem": "Q, x", "Answer": 70}, {"problem": "R", "answer": 42.0}),
        ),
        ("a.csv", 'ID,Year,Question,Answer,Part\n1,2000,"Q, x",70,I\n2,2000,R,042,II\n'),
        ("a.csv", '\ufeffquestion,answer\r\n"Q, x",70\r\n\r\nR,42^\\circ\r\n'),
    ],
)
def test_aime(write, name, contents):
    first, second = aime.read_aime(write(name, contents))
    assert (first.name, first.answer, second.answer) == ("a", Boxed(70), Boxed(42))
    text = first.prompt("high").messages[-1].text
    assert text.startswith("Q, x\n")
    assert text.endswith(r"put your final answer within \boxed{}.")


@pytest.mark.parametrize(
    ("name", "contents", "sentence"),
    [
        ("a.jsonl", "", "has no problems"),
        ("a.csv", "", "has no problems"),
        ("a.jsonl", lines({"question": "Q"}), "line 1 has no answer"),
        ("a.jsonl", lines({"answer": 1}), "line 1 has no question or problem"),
        (
            "a.jsonl",
            lines({"question": "Q", "answer": "1000"}),
            "expected a whole number from 0 to 999",
        ),
        ("a.jsonl", lines({"question": "Q", "answer": "-1"}), "a whole number"),
        ("a.jsonl", lines({"question": "Q", "answer": 0.5}), "a whole number"),
        ("a.jsonl", lines({"question": "Q", "answer": None}), "answer is empty"),
        ("a.jsonl", lines({"question": "\udc00", "answer": 1}), "surrogate"),
        ("a.csv", "question,answer\nQ,1,2\n", "line 2 has 3 cells; the header names 2"),
        ("a.csv", 'question,answer\n"Q\nQ",1\nR,x\n', "as the answer, got 'x'"),
        ("a.csv", b"question,answer\n\xff,1\n", "is not UTF-8 text"),
    ],
)
def test_aime_defects(write, name, contents, sentence):
    with pytest.raises(LabError, match=r"^[^\n]*$") as raised:
        aime.read_aime(write(name, contents))
    assert sentence in str(raised.value)


# GPQA

GPQA_HEADER = (
    "Pre-Revision Question,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,"
    "Incorrect Answer 3,Explanation,High-level domain\n"
)


def test_gpqa(write):
    rows = [f'old,"Q{n}, all?","yes{n}\n",no1,no2,no3,why,Physics\n' for n in range(40)]
    questions = gpqa.read_gpqa(write("gpqa_main.csv", GPQA_HEADER + "".join(rows)))
    assert {question.name for question in questions} == {"Physics"}
    for n, question in enumerate(questions):
        text = question.prompt("low").messages[-1].text
        assert isinstance(question.answer, Choice)
        assert f"({question.answer.letter}) yes{n}\n" in text
        assert text.startswith(f"Q{n}, all?\n\n(A) ")
        assert all(f") no{k}\n" in text for k in (1, 2, 3))
    assert {repr(question.answer) for question in questions} == {
        f"Choice(letter={c!r})" for c in "ABCD"
    }
    assert gpqa.read_gpqa(write("later.csv", GPQA_HEADER + rows[7])) == [questions[7]]


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ("", "has no questions"),
        (GPQA_HEADER, "has no questions"),
        ("a,b\n1,2\n", "line 2 has no question"),
        ("question,correct answer\nQ,1\n", "line 2 has no incorrect answer 1"),
        (GPQA_HEADER + "old,Q,,1,2,3,why,Physics\n", "line 2: correct answer is empty"),
    ],
)
def test_gpqa_defects(write, contents, sentence):
    with pytest.raises(LabError) as raised:
        gpqa.read_gpqa(write("gpqa_main.csv", contents))
    assert sentence in str(raised.value)


# MMLU


def test_mmlu(write, tmp_path):
    row = '"Rank, of [[1]]?",0, 1,2,3,B\n'
    first = write("data/test/machine_learning_test.csv", row + "Why?,a,b,c,d,D\n")
    write("data/test/anatomy_test.csv", row)
    write("data/dev/anatomy_dev.csv", row)
    one, two = mmlu.read_mmlu(first)
    assert (one.name, one.answer, two.answer) == ("machine learning", Choice("B"), Choice("D"))
    text = one.prompt("low").messages[-1].text
    assert text.startswith("Rank, of [[1]]?\n\n(A) 0\n(B) 1\n(C) 2\n(D) 3\n\n")
    for folder in ("data", "data/test"):
        names = [question.name for question in mmlu.read_mmlu(tmp_path / folder)]
        assert names == ["anatomy", "machine learning", "machine learning"]


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ("", "has no questions"),
        ("Q,a,b,c,A\n", "line 1 has 5 cells"),
        ("Q,a,b,c,d,A\nQ,a,b,c,d,E\n", "line 2: the answer is 'E'"),
        ("Question,A,B,C,D,Answer\n", "line 1: the answer is 'Answer'"),
        ("Q,a,b,c,d,\n", "line 1: the answer is ''"),
        ("Q,a,b,c,d,AB\n", "line 1: the answer is 'AB'"),
        ("Q" * 200_000 + ",a,b,c,d,A\n", "line 1 is not CSV"),
    ],
)
def test_mmlu_defects(write, contents, sentence):
    with pytest.raises(LabError) as raised:
        mmlu.read_mmlu(write("anatomy_test.csv", contents))
    assert sentence in str(raised.value)


def test_an_empty_mmlu_folder(tmp_path):
    with pytest.raises(LabError, match="name MMLU's folder"):
        mmlu.read_mmlu(tmp_path)


# Built in


def test_built_in_questions_follow_from_the_seed():
    assert repr(suite.draw_questions(3, 1)) == repr(suite.draw_questions(3, 1))
    assert repr(suite.draw_questions(3, 1)) != repr(suite.draw_questions(3, 2))
    names = [question.name for question in suite.draw_questions(3, 1)]
    assert all(names.count(name) == 3 for name in names)
