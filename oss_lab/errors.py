"""The errors that a user can cause. Each is one sentence: what is wrong, where, what to do.

A sentence begins in lower case and ends without a period: it is printed after `oss-lab:` and often
after a file's name.

The command line prints a `LabError` as a single line on stderr. Any other exception is a bug in
oss_lab and keeps its traceback.
"""


class LabError(ValueError):
    """Something that the user gave cannot be used; the message is one sentence."""


class CheckpointError(LabError):
    """A checkpoint folder, file or tensor with a defect."""


class VocabularyError(LabError):
    """A vocabulary that was not found, or that differs from the published one."""


class HarmonyError(LabError):
    """A conversation that cannot be rendered, or a stream that strict parsing rejects."""


class HarmonyWarning(UserWarning):
    """A part of a conversation that the model does not see as it was given."""


def check_index(what: str, n: int, count: int) -> None:
    """Raise LabError if the index `n` of a layer, head or position is not below `count`.

    >>> check_index("layer", 4, 4)
    Traceback (most recent call last):
    oss_lab.errors.LabError: there is no layer 4; they are 0 to 3
    """
    if not 0 <= n < count:
        raise LabError(f"there is no {what} {n}; they are 0 to {count - 1}")
