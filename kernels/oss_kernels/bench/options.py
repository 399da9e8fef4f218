"""Argument types shared by the benchmarks' command lines."""

from argparse import ArgumentTypeError


def parse_positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)
