"""The errors that a user can cause. Each is one sentence: what is wrong, where, what to do.

A sentence begins in lower case and ends without a period: it is printed after `oss-lab:` and often
after a file's name.

The command line prints a `LabError` as a single line on stderr, and a notebook shows it after the
user's own lines that led to it. Any other exception is a bug in oss_lab and keeps its traceback.
The functions here write parts of sentences that several modules need.
"""

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path


class LabError(ValueError):
    """Something that the user gave cannot be used; the message is one sentence on one line."""

    def __init__(self, sentence: str) -> None:
        super().__init__(re.sub(r"\s*[\r\n]+\s*", " ", sentence))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: the user's own lines and the sentence.

        All of it can still be printed: Python keeps the last exception in the module sys.
        """
        lines = [
            f"line {frame.lineno} of {name_source(frame.filename)}: {frame.line}"
            for frame in traceback.extract_tb(self.__traceback__)
            if is_own(frame.filename)
        ]
        return [*lines, f"{type(self).__name__}: {self}"]


LIBRARIES = {"site-packages", "dist-packages", "oss_kernels", "oss_widgets"}
FOLDERS = (Path(__file__).parent, Path(sysconfig.get_path("stdlib")))


def is_own(file: str) -> bool:
    """Whether a traceback's file is the user's: a cell or a module, and not a library's."""
    path = Path(file)
    is_library = LIBRARIES & set(path.parts) or any(map(path.is_relative_to, FOLDERS))
    return not is_library and not file.startswith("<frozen")


def name_source(file: str) -> str:
    """A traceback's file in words: a cell of a notebook has a file with a number as its name."""
    is_cell = "ipykernel_" in file or file.startswith("<ipython-input")
    return "the cell" if is_cell else Path(file).name


class CheckpointError(LabError):
    """A checkpoint folder, file or tensor with a defect."""


class VocabularyError(LabError):
    """A vocabulary that was not found, or that differs from the published one."""


class HarmonyError(LabError):
    """A conversation that cannot be rendered, or a stream that strict parsing rejects."""


class HarmonyWarning(UserWarning):
    """A part of a conversation that the model does not see as it was given."""


def check_index(what: str, n: int, count: int, owner: str = "") -> None:
    """Raise LabError if the index `n` of a layer, head or position is not below `count`.

    >>> check_index("layer", 4, 4)
    Traceback (most recent call last):
    oss_lab.errors.LabError: layer 4 is out of range; this model has layers 0 to 3
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise LabError(f"{what} must be an integer, got {n!r}")
    if not 0 <= n < count:
        raise LabError(explain_range(what, n, count, owner))


OWNERS = {"position": "the sequence", "row": "the cache", "sequence": "the corpus"}


def explain_range(what: str, n: int, count: int, owner: str = "") -> str:
    """The sentence about an index that is not below `count`.

    >>> explain_range("row", -1, 1)
    'row -1 is out of range; the cache has only row 0'
    """
    there = f"{what}s 0 to {count - 1}" if count > 1 else f"only {what} 0"
    owner = owner or OWNERS.get(what, "this model")
    return f"{what} {n} is out of range; {owner} has {there}"


def explain_unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The sentence about an unknown name, with the nearest known one.

    >>> explain_unknown("keyword", "sed", ("seed", "stop"))
    "there is no keyword 'sed'; did you mean 'seed'? The keywords are seed, stop"
    """
    return f"there is no {what} {name!r}; {list_known(what, name, known)}"


def list_known(what: str, name: object, known: Iterable[str]) -> str:
    """The known names, after the one that is nearest to an unknown `name`.

    >>> list_known("keyword", "x", ("seed", "stop"))
    'the keywords are seed, stop'
    """
    names = list(known)
    close = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}? The" if close else "the"
    return f"{hint} {what}s are {', '.join(names)}"


def show_safely(value: object, show: Callable[[object], str] = repr) -> str:
    """The text of a value, or its type if it has none: `repr` fails for very long numbers.

    >>> show_safely(10**5000)
    '<int>'
    """
    try:
        return show(value)
    except Exception:
        return f"<{type(value).__name__}>"


def explain_error(error: BaseException, longest: int = 300) -> str:
    """The kind of an exception that is not ours, and its text.

    >>> explain_error(KeyError("a"))
    "KeyError: 'a'"
    """
    return shorten(f"{type(error).__name__}: {show_safely(error, str)}", longest)


def shorten(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis if it has more than `longest` characters.

    >>> shorten("a long answer", 7)
    'a long…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
