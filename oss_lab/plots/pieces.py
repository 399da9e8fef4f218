"""Text as pieces: each token in a box, and a row for each vocabulary or language.

The bytes of a token that splits a character are not text; they are shown in hexadecimal. The color
of a box has no meaning: it alternates, so that you see where a token ends.
"""

from collections.abc import Mapping, Sequence
from html import escape

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Passage
from oss_lab.plots.style import plural
from oss_lab.plots.tokens import make_visible

BOX = "display:inline-block;border:1px solid #767676;border-radius:3px;padding:0 2px;margin:1px"
TINTS = ("", ";background:rgba(136,204,238,0.3)")  # readable on white and on dark paper
LONGEST = 16  # tokens that the sentence lists


@check_arguments
def pieces(rows: Mapping[str, Sequence[bytes]]) -> Passage:
    """Each row's tokens, given as bytes. Its sentence counts them, and lists those of short rows.

    Raises:
        LabError: there are no rows.
    """
    if not rows:
        raise LabError("there are no rows of tokens to draw; give at least one")
    lines = [
        f'<div style="margin:6px 0"><b>{escape(name)}</b> · {plural(len(tokens), "token")}'
        f'<div style="font-family:monospace;line-height:1.7;overflow-wrap:anywhere">'
        f"{''.join(map(_box, range(len(tokens)), tokens))}</div></div>"
        for name, tokens in rows.items()
    ]
    return Passage("".join(lines), "; ".join(map(_describe, rows, rows.values())) + ".")


def show_bytes(token: bytes) -> str:
    """The text of a token, or its bytes in hexadecimal if they are not whole characters."""
    try:
        return make_visible(token.decode())
    except UnicodeDecodeError:
        return token.hex(" ").upper()


def _box(number: int, token: bytes) -> str:
    return f'<span style="{BOX}{TINTS[number % 2]}">{escape(show_bytes(token))}</span>'


def _describe(name: str, tokens: Sequence[bytes]) -> str:
    listed = f" ({' | '.join(map(show_bytes, tokens))})" if len(tokens) <= LONGEST else ""
    return f"{name}: {plural(len(tokens), 'token')}{listed}"
