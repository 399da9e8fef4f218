"""The errors a person can cause, each one sentence: what is wrong, where, what to do.

A sentence begins in lower case and ends without a period: it is printed after `oss-lab:` and often
after a file's name.

The command line prints a `LabError` as its single line on stderr; anything else is a defect of
ours and keeps its traceback.
"""


class LabError(ValueError):
    """Something the user gave cannot be used; the message is one complete sentence."""


class CheckpointError(LabError):
    """A checkpoint folder, file or tensor that cannot be trusted."""


class VocabularyError(LabError):
    """A vocabulary that is absent, or whose bytes are not the published ones."""


class HarmonyError(LabError):
    """A conversation that cannot be rendered, or a stream that strict parsing refuses."""


def check_index(what: str, n: int, count: int) -> None:
    """Raise LabError for a layer, head, position or the like that is not one of `count`.

    >>> check_index("layer", 4, 4)
    Traceback (most recent call last):
    oss_lab.errors.LabError: there is no layer 4; they are 0 to 3
    """
    if not 0 <= n < count:
        raise LabError(f"there is no {what} {n}; they are 0 to {count - 1}")
