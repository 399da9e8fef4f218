"""The map of the model that heads every lesson, with the parts of the day marked.

    show_map("attention")

A box is one step of the way from text to a reply. Boxes whose parts the learner has written (see
`oss_lab.course.progress`) are filled.
"""

from html import escape

from oss_lab.course.progress import read_parts
from oss_lab.errors import LabError, explain_unknown
from oss_lab.plots.figure import Passage

BOXES: dict[str, tuple[str, ...]] = {
    "harmony": ("render",),
    "tokens": ("merge",),
    "embedding": (),
    "norm": ("rms_norm",),
    "attention": (
        "rotate", "yarn_frequencies", "yarn_concentration", "attention_scores", "visible_keys",
        "softmax_with_sink",
    ),
    "experts": ("router", "split_gate_up", "swiglu", "mxfp4"),
    "logits": (),
    "sampling": ("sample",),
    "channels": ("parse",),
}  # fmt: skip
"""The steps of the model in order, each with the parts of nano that a learner can write."""
LAYER = ("norm", "attention", "norm", "experts")
ORDER = ("harmony", "tokens", "embedding", "LAYER", "norm", "logits", "sampling", "channels")
BOX = "border:1px solid #767676;border-radius:4px;padding:2px 4px;margin:1px;white-space:nowrap;"
LIT = "border:3px solid #cc6677;font-weight:bold;"
MINE = "background:#117733;color:#ffffff;"
ROW = "display:flex;flex-wrap:wrap;align-items:center;"
SMALL = "font-size:13px;"  # the map fits one line beside JupyterLab's list of files


def show_map(*lit: str) -> Passage:
    """The map with these boxes marked, and a sentence that says the same.

    Raises:
        LabError: there is no such box.
    """
    for name in lit:
        if name not in BOXES:
            raise LabError(explain_unknown("box", name, BOXES))
    mine = set(read_parts())
    pieces = [draw_layer(lit, mine) if step == "LAYER" else draw(step, lit, mine) for step in ORDER]
    arrow = "<span aria-hidden='true'>→</span>"
    html = f'<div style="{ROW}{SMALL}">{arrow.join(pieces)}</div>'
    about = f"This lesson is about {join_words(lit)}." if lit else "The whole model."
    return Passage(html, f"{DESCRIPTION} {about} {describe_parts(mine)}")


DESCRIPTION = (
    "The model: a chat in the Harmony format becomes tokens; then embedding, layers of norm,"
    " attention, norm and experts, a last norm, logits, sampling and channels."
)


def draw(name: str, lit: tuple[str, ...], mine: set[str]) -> str:
    parts = set(BOXES[name])
    style = BOX + (LIT if name in lit else "") + (MINE if parts and parts <= mine else "")
    note = f" {len(parts & mine)}/{len(parts)}" if parts & mine and not parts <= mine else ""
    return f'<span style="{style}">{escape(name)}{note}</span>'


def draw_layer(lit: tuple[str, ...], mine: set[str]) -> str:
    boxes = "<span aria-hidden='true'>→</span>".join(draw(name, lit, mine) for name in LAYER)
    style = f"{ROW}border:1px dashed #767676;border-radius:6px;padding:3px;margin:2px;"
    return f'<span style="{style}">{boxes}<span>&nbsp;every layer</span></span>'


def describe_parts(mine: set[str]) -> str:
    known = sorted(mine & {part for parts in BOXES.values() for part in parts})
    total = sum(map(len, BOXES.values()))
    listed = f": {', '.join(known)}" if known else ""
    return f"{len(known)} of its {total} parts are yours{listed}."


def join_words(words: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
