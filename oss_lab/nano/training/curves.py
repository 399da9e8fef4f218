"""The training curves of a run as one page.

`python -m oss_lab.nano.training.curves FOLDER` writes `curves.html`. The page includes plotly and
needs no network. `oss-lab train` writes it at the end of a run; you can also write it during a run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.nano.training.log import LOG, TrainingStep, read_log
from oss_lab.nano.training.step import CLIP
from oss_lab.plots.figure import Figure
from oss_lab.plots.page import render_page
from oss_lab.plots.training import gradient_norm, routing, speed, training_loss
from oss_lab.plots.training_groups import setting_losses, task_losses


def build_figures(steps: Sequence[TrainingStep]) -> list[Figure]:
    """The figures of the page, in order."""
    return [
        training_loss(steps),
        task_losses(steps),
        setting_losses(steps),
        routing(steps),
        gradient_norm(steps, CLIP),
        speed(steps),
    ]


def write_curves(folder: Path) -> Path:
    """Write the page for the run in `folder`, next to its log.

    Raises:
        LabError: the folder has no log, or its log is of another version.
    """
    steps = read_log(folder / LOG)
    if not steps:
        raise LabError(f"{folder / LOG} is empty; train at least one step first")
    file = folder / "curves.html"
    file.write_text(
        render_page(build_figures(steps), f"Training of {folder.resolve().name}"), encoding="utf-8"
    )
    return file


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m oss_lab.nano.training.curves FOLDER", file=sys.stderr)
        return 2
    try:
        print(write_curves(Path(arguments[0])))
    except (LabError, OSError) as error:
        print(f"oss_lab.nano.training.curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
