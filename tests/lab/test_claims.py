"""Every measured number in the notebooks' prose is bound to something that recomputes it.

A number passes if, in its section, a compared cell prints it or code computes with it (not in a
comment or a text), if it is a fact about a word of its sentence, or if the ledger has it. Exempt
by rule: whole numbers up to 10 that count things on the page, unlike a measure such as "9 MiB"; the
numbers of sections, lessons, exercises and years; the level of an interval, 95%; the course's
question and answer; the table at the top; links; code, except a result of four digits or more. The
five questions at the end invent their numbers, and the sources cite theirs. Numbers in words, such
as "half", are not seen.
"""

import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oss_lab.course.facts import list_facts
from oss_lab.course.ledger import CLAIMS, Claim

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULT = re.compile(r"`(\d[\d,]{3,})`")
TABLE = re.compile(r"^\| (?:reading|minutes) \|.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
MEASURE = re.compile(r"[ -](?:percent|[KMG]i?B|seconds?|ms|times(?! in)|million|billion|of \d)")
EXEMPT = re.compile(
    r"```.*?```"  # code
    r"|`[^`\n]+`"
    r"|\]\([^)]*\)"  # targets of links
    r"|https?://\S+"
    r"|</?[a-zA-Z][^<>]*>"  # tags
    r"|&\w+;"
    r"|^#+ \d+\.? "  # numbers of sections
    r"|^\s*\d+\. "  # lists
    r"|\b(?:section|lesson|exercise|chapter|figure|exhibit|cell|step|claim)s? \d+"
    r"|\b(?:19[5-9]|20[12])\d\b"  # years
    r"|\b347 \* 62\b|\b21514\b"  # the question of the course, and its answer
    r"|\b95 ?%(?= (?:\*\*)?(?:confidence )?interval)"
    r"|\b\d{4}\.\d{5}\b"  # arXiv
    r"|\b\d\d_\w+"  # lessons
    r"|gpt-oss-\d+b|\b(?:20|120)b\b|o200k\w*|MXFP4|UTF-8|FP\d+|bfloat16|float\d+|int\d+",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.,])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-−]?\d+)?%?")
NAME = re.compile(r"\b(?:20|120)b\b")  # of a model
END = re.compile(r"(?<=[.?!:])\s|\n\n")  # of a sentence
SPACE = re.compile(r"[\s\u00a0\u202f]+")
WORDS = defaultdict[str, set[str]](set)  # for each fact, the words that its sentence may have
for word, number in list_facts():
    WORDS[f"{number:.12g}"].add(word)
UNCOMPARED = {"nbval-ignore-output", "nbval-skip"}


def split_sections(notebook: Any, claimed: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """The Markdown of each section without claims and what is exempt, and its code cells."""
    sections: list[tuple[list[str], list[Any]]] = [([], [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            sections[-1][1].append(cell)
        elif cell.cell_type == "markdown":
            first, *others = re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
            sections[-1][0].append(first)
            sections += [([other], []) for other in others]
    for texts, cells in sections:
        if texts and texts[0].startswith("## Five questions"):
            return
        text = TABLE.sub("", "\n\n".join(texts))
        for passage in claimed:
            text = re.sub(r"\s+".join(map(re.escape, passage.split())), "", text)
        text = RESULT.sub(r"\1", text)
        yield EXEMPT.sub(" ", text), cells


def normalize(number: str) -> str:
    return number.rstrip(",.").replace(",", "").replace("−", "-").lstrip("-")


def find_bound(cells: list[Any]) -> set[str]:
    """The numbers that compared cells store, and those in the code."""
    texts: list[str] = []
    for cell in cells:
        texts += find_literals(cell.source)
        if UNCOMPARED & set(cell.metadata.get("tags", ())):
            continue
        for output in cell.outputs:
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    found = (NUMBER.findall(NAME.sub("", text)) for text in texts)
    return {normalize(each) for numbers in found for each in numbers}


def find_literals(code: str) -> Iterator[str]:
    """The numbers that the code computes with: none of comments and texts."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NUMBER:
            yield token.string.replace("_", "")


def is_count(number: str, following: str) -> bool:
    """Whether a number counts things on the page, by itself and the text after it."""
    return number.isdigit() and int(number) <= 10 and not MEASURE.match(following)


def find_sentence(prose: str, number: re.Match[str]) -> str:
    before = END.split(prose[: number.start()])[-1]
    return before + number[0] + END.split(prose[number.end() :])[0]


def is_fact(number: str, sentence: str) -> bool:
    """Whether the number is a fact about something that its sentence names."""
    return any(re.search(rf"\b{word}", sentence, re.IGNORECASE) for word in WORDS.get(number, ()))


def find_unbound(notebook: Any, page: str) -> Iterator[str]:
    """The numbers of the prose that nothing recomputes, each with its surroundings."""
    claimed = [claim.passage for claim in CLAIMS if claim.page == page]
    for prose, cells in split_sections(notebook, claimed):
        bound = find_bound(cells)
        for match in NUMBER.finditer(prose):
            number = normalize(match[0])
            after = prose[match.end() :]
            is_bound = number in bound or is_fact(number, find_sentence(prose, match))
            if not is_bound and not is_count(number, after):
                around = prose[max(0, match.start() - 30) : match.end() + 30]
                yield f"{match[0]} in “{SPACE.sub(' ', around)}”"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_number_is_bound(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert list(find_unbound(notebook, path.relative_to(ROOT).as_posix())) == []


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page}: {claim.passage}")
def test_a_claim_is_recomputed(claim: Claim) -> None:
    prose = (ROOT / claim.page).read_text("utf-8")
    if claim.page.endswith(".ipynb"):
        cells = nbformat.reads(prose, as_version=4).cells
        prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert claim.passage in SPACE.sub(" ", prose)
    assert claim.compute() == claim.passage


def make(
    text: str, *, printed: str = "", tags: tuple[str, ...] = (), code: str = "n = 347 * 62"
) -> Any:
    v4 = nbformat.v4
    outputs = [v4.new_output("stream", name="stdout", text=printed)]
    cell = v4.new_code_cell(code, outputs=outputs, metadata={"tags": list(tags)})
    return v4.new_notebook(cells=[v4.new_markdown_cell(text), cell])


@pytest.mark.parametrize(
    "text",
    [
        "It is 97% right.",
        "It takes 4.7 seconds",
        "12 heads",
        "a change of 1,234",
        "1.5e-3 apart",
        "p < 1, so 97% are right, and 5 > 3",
        "in 2048 steps",
        "It is 347.\n\n## Next\n\nIt is 62.",
        "It takes 32 seconds. Its window is short.",
        "needs 9 MiB",
        "3 percent of them",
        "The answer is `22054`.",
    ],
)
def test_a_number_without_a_check_is_found(text: str) -> None:
    assert list(find_unbound(make(text), "x"))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("It is 97% right.", "97% right"),
        ("a change of 1,234.", "1234"),
        ("347 times 62", ""),
        ("131,072 tokens, 128 of them in the window, 2,880 numbers", ""),
        ("The answer is `22054`.", "22,054"),
        ("right 7 times in 10", ""),
        ("four experts, 5 questions, in 2025 and section 12, `x[99]`, arXiv 2309.00071", ""),
        ("## Five questions\n\n97% of 1,234", ""),
    ],
)
def test_a_number_with_a_check_is_not(text: str, printed: str) -> None:
    assert list(find_unbound(make("\n" + text, printed=printed), "x")) == []


@pytest.mark.parametrize("code", ["n = 1  # 97%, 97", "print('97% or 97')", 'f"{n} of 97"'])
def test_a_comment_or_a_text_binds_nothing(code: str) -> None:
    assert list(find_unbound(make("It is 97 of them.", code=code), "x"))


def test_an_output_that_is_not_compared_binds_nothing() -> None:
    notebook = make("It is 97% right.", printed="97%", tags=("nbval-ignore-output",))
    assert list(find_unbound(notebook, "x"))
