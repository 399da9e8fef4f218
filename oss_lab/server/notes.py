"""What the server ignored or replaced in a request, in the response header `x-oss-lab-notes`."""

from collections.abc import Iterable

HEADER = "x-oss-lab-notes"
LONGEST = 1000  # characters


def note_headers(notes: Iterable[str]) -> dict[str, str]:
    """The header with these sentences; none if there is nothing to say."""
    text = "; ".join(" ".join(note.split()) for note in notes)
    # A header may hold only ASCII without control characters.
    shown = "".join(each if " " <= each <= "~" else "?" for each in text[:LONGEST])
    return {HEADER: shown} if shown else {}
