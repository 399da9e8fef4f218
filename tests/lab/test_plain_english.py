"""The prose of the project avoids the habits that made it hard to read.

Each pattern is a habit of the old text; an ordinary word says the same. A few matches are ordinary
English ("the folder behind a link"), so the test allows some in total. Spelling is American, as in
the identifiers of the ecosystem; data that was recorded before keeps its spelling.
"""

import re
from collections.abc import Iterator

LIMIT = 10
SPACE = r"[\s#]+"  # also over the end of a line, in prose and in comments
HABITS = re.compile(
    r"""
      \b(
        behind
      | stands?_(in|for|there|on|under)
      | told
      | (goes|go|gone)_on
      | anew
      | lies?_over
      | at_the_most
      | of_its_own
      | handed_out
      | asked_for
      | is_no_(such_)?[a-z]+_(that|which|of|in|but)
      )\b
    | spel(t|led)-out
    """.replace("_", SPACE),
    re.IGNORECASE | re.VERBOSE,
)
BRITISH = re.compile(  # \w* before it would make this ten times slower
    r"(behaviour|centred|colour|initialis|labelle|labelli(?!ft)|learnt|neighbour|normalis|quantis|recognis|spelt)\w*",
    re.IGNORECASE,
)
RECORDED = re.compile("learnt_tokens|nothing it learnt to calculate|colours of light")
EXAMPLES = [
    "the step behind it; Behind",
    "it stands for, stand in",
    "as it was told",
    "it goes on, to go on, gone on",
    "built anew",
    "the spelt-out and the spelled-out model",
    "it lies over, they lie over",
    "two at the most",
    "a cache of its own",
    "what is handed out",
    "what was asked for",
    "it is no token that, is no such list of",
]


def find_matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """(line, match) of every match, in order."""
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())


def find_in_prose(pattern: re.Pattern[str], tracked_files: dict[str, str]) -> list[str]:
    return [
        f"{file}:{line}: {match}"
        for file, text in tracked_files.items()
        if file.endswith((".py", ".md", ".ipynb", ".js"))
        and file != "tests/lab/test_plain_english.py"
        for line, match in find_matches(pattern, text)
    ]


def test_prose_has_few_habits(tracked_files: dict[str, str]) -> None:
    found = find_in_prose(HABITS, tracked_files)
    listed = "\n".join(found)
    assert len(found) <= LIMIT, f"{len(found)} habits where {LIMIT} are allowed:\n{listed}"


def test_spelling_is_american(tracked_files: dict[str, str]) -> None:
    texts = {file: RECORDED.sub("", text) for file, text in tracked_files.items()}
    del texts["CHANGELOG.md"]  # lists old names
    assert not find_in_prose(BRITISH, texts)


def test_every_habit_is_found() -> None:
    counts = [len(list(find_matches(HABITS, example))) for example in EXAMPLES]
    assert counts == [2, 2, 1, 3, 1, 2, 2, 1, 1, 1, 1, 2]
    assert list(find_matches(HABITS, "two at the\n    # most")) == [(1, "at the # most")]
    assert not list(
        find_matches(HABITS, "Continues after the step. It is not a token. Ask for help.")
    )
