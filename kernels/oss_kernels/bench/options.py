"""What the benches' command lines have in common."""

from argparse import ArgumentTypeError


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)
