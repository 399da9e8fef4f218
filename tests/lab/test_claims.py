"""Every measured number in the notebooks' prose is bound to something that recomputes it.

A number passes if a compared cell of the same notebook prints it or its code computes with it (not
in a comment or a text), if it is a fact of a configuration, or if the ledger has it. Exempt by
rule: whole numbers up to 10 without a percent sign, which count things on the page; the numbers of
sections, lessons, exercises and years; the level of an interval, 95%; the course's question; the
table at the top; code and links. The five questions at the end invent their numbers.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oss_lab.course.ledger import CLAIMS, Claim, list_facts

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
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
    r"|\b347 \* 62\b"  # the question of the course
    r"|\b95 ?%(?= (?:\*\*)?(?:confidence )?interval)"
    r"|\b\d{4}\.\d{5}\b"  # arXiv
    r"|\b\d\d_\w+"  # lessons
    r"|gpt-oss-\d+b|\b(?:20|120)b\b|o200k\w*|MXFP4|UTF-8|FP\d+|bfloat16|float\d+|int\d+",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.,])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-−]?\d+)?%?")
SPACE = re.compile(r"[\s\u00a0\u202f]+")
UNCOMPARED = {"nbval-ignore-output", "nbval-skip"}


def read_prose(notebook: Any) -> str:
    """The notebook's Markdown without what is exempt."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(texts).partition("\n## Five questions")[0]
    text = re.sub(r"^\| (?:reading|minutes) \|.*?(?=\n\n|\Z)", "", text, flags=re.M | re.S)
    return EXEMPT.sub(" ", text)


def normalize(number: str) -> str:
    return number.replace(",", "").replace("−", "-").lstrip("-")


def find_bound(notebook: Any) -> set[str]:
    """The numbers that a compared cell stores, and those in the code."""
    texts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        texts += find_literals(cell.source)
        if UNCOMPARED & set(cell.metadata.get("tags", ())):
            continue
        for output in cell.outputs:
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return {normalize(each) for text in texts for each in NUMBER.findall(text)}


def find_literals(code: str) -> Iterator[str]:
    """The numbers that the code computes with: none of comments and texts."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NUMBER:
            yield token.string.replace("_", "")


def is_count(number: str) -> bool:
    return number.isdigit() and int(number) <= 10


def find_unbound(notebook: Any, lesson: str) -> Iterator[str]:
    """The numbers of the prose that nothing recomputes, each with its surroundings."""
    prose = read_prose(notebook)
    claimed = {
        normalize(each)
        for claim in CLAIMS
        if claim.lesson == lesson
        for each in NUMBER.findall(claim.passage)
    }
    bound = find_bound(notebook) | set(map(normalize, list_facts())) | claimed
    for match in NUMBER.finditer(prose):
        number = normalize(match[0].rstrip(",."))
        if number not in bound and not is_count(number):
            around = prose[max(0, match.start() - 30) : match.end() + 30]
            yield f"{match[0]} in “{SPACE.sub(' ', around)}”"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_number_is_bound(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert list(find_unbound(notebook, path.stem)) == []


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.lesson}: {claim.passage}")
def test_a_claim_is_recomputed(claim: Claim) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{claim.lesson}.ipynb", as_version=4).cells
    prose = SPACE.sub(" ", "\n\n".join(c.source for c in cells if c.cell_type == "markdown"))
    assert claim.passage in prose
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
        ("131,072 tokens, 128 of them in the window, 2,880 wide", ""),
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
