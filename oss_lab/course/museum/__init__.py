"""The bug museum: bugs that public implementations of gpt-oss had, built into nano.

    from oss_lab.course import museum

    museum.list_exhibits()                 # the symptoms, without the causes
    strange = museum.enter(lab, 3)         # a lab with the bug of exhibit 3
    museum.compare(lab, strange)           # prompts, logits by length, first difference
    museum.guess(3, "window")              # prints whether that is it
    museum.reveal(3)                       # prints the bug, its fix and its source

The instruments are in `oss_lab.course.instruments`. `exhibits.py` has the answers.
"""

from dataclasses import dataclass
from textwrap import fill

from oss_lab.course.instruments import (
    LENGTHS,
    Comparison,
    Difference,
    LogitChanges,
    compare_logits,
    compare_prompts,
    example_ids,
    first_difference,
)
from oss_lab.course.museum.exhibits import EXHIBITS, Exhibit
from oss_lab.course.museum.visit import BuggyLab
from oss_lab.errors import LabError, explain_unknown
from oss_lab.lab.workbench import Lab

LINE = 100  # characters
COLUMN = 10  # characters of the names of facts


@dataclass(frozen=True, repr=False)
class Report:
    """What several instruments show of two labs."""

    prompts: Comparison
    logits: LogitChanges
    difference: Difference

    def __repr__(self) -> str:
        return f"{self.prompts}\n{self.logits}\n{self.difference}"


def find_exhibit(number: int) -> Exhibit:
    """The exhibit with this number, from 1.

    Raises:
        LabError: there is none.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise LabError(f"expected the number of an exhibit, got {number!r}")
    if not 1 <= number <= len(EXHIBITS):
        raise LabError(f"there is no exhibit {number}; the exhibits are 1 to {len(EXHIBITS)}")
    return EXHIBITS[number - 1]


def list_exhibits() -> None:
    """Print the number and the symptom of each exhibit."""
    for number, exhibit in enumerate(EXHIBITS, 1):
        print(f"{number:2}  {exhibit.symptom}")


def enter(lab: Lab, number: int) -> Lab:
    """A lab with the bug of an exhibit, over the weights of `lab`, which does not change.

    It runs the reference model. Its repr, replies and traces name only the number.

    Raises:
        LabError: there is no such exhibit, or `lab` has replaced parts.
    """
    exhibit = find_exhibit(number)
    if lab.parts or isinstance(lab, BuggyLab):
        raise LabError("enter the museum with a lab whose parts are all the library's")
    strange = exhibit.make(lab)
    strange.set_label(f"exhibit {number}")
    return strange


def compare(lab: Lab, other: Lab, length: int = LENGTHS[-1]) -> Report:
    """Compare prompts, logits up to this length, and the first difference at this length."""
    ids = example_ids(lab)
    lengths = [each for each in LENGTHS if each < length] + [length]
    return Report(
        compare_prompts(lab, other, effort="high"),
        compare_logits(lab, other, lengths, of=ids),
        first_difference(lab, other, length, of=ids),
    )


def guess(number: int, concept: str) -> None:
    """Print whether the bug of an exhibit belongs to a concept, such as "window"."""
    exhibit = find_exhibit(number)
    if not isinstance(concept, str) or not concept.strip():
        raise LabError(f"expected a concept such as 'window', got {concept!r}")
    word = concept.strip().lower()
    known = {each for one in EXHIBITS for each in one.concepts}
    if word not in known:
        raise LabError(explain_unknown("concept", word, sorted(known)))
    if word in exhibit.concepts:
        print(f"Yes: exhibit {number} is about {word}. museum.reveal({number}) shows the rest.")
    else:
        print(wrap(f"No: exhibit {number} is not about {word}. Try this: {exhibit.hint}"))


def reveal(number: int) -> None:
    """Print the bug of an exhibit, its fix, its source, and the moral."""
    exhibit = find_exhibit(number)
    seen = ", ".join(sorted(exhibit.seen_by)) or "none of the instruments on a single question"
    print(f"Exhibit {number}: {exhibit.name}")
    facts = {
        "where": exhibit.where,
        "source": exhibit.source,
        "bug": exhibit.change,
        "fix": exhibit.fix,
        "shown by": seen,
        "moral": exhibit.moral,
    }
    for name, fact in facts.items():
        print(wrap(fact, f"{name}:"))


def wrap(text: str, name: str = "") -> str:
    """A text in lines that fit a notebook, in a column beside its name."""
    indent = " " * (COLUMN if name else 0)
    return fill(
        text,
        LINE,
        initial_indent=name.ljust(len(indent)),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
