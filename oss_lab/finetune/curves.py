"""The curves of a fine-tuning run as one page, `curves.html`, which needs no network."""

import json
from pathlib import Path

from oss_lab.checkpoint.atomic import write_text
from oss_lab.finetune.log import LOG, read_log
from oss_lab.finetune.recipe import RECIPE
from oss_lab.nano.training.records import read_text
from oss_lab.plots.page import render_page
from oss_lab.plots.training import gradient_norm, speed, training_loss


def write_curves(folder: Path, refresh: int | None = None) -> Path:
    """Write the page for the run in `folder`, at its end or during it.

    Args:
        refresh: seconds after which a browser reads it again, during a run.

    Raises:
        LabError: the folder has no run, or no step yet.
    """
    steps = read_log(folder / LOG)
    clip = json.loads(read_text(folder / RECIPE))["clip"]
    figures = [training_loss(steps), gradient_norm(steps, clip), speed(steps)]
    file = folder / "curves.html"
    title = f"Training of {folder.resolve().name}"
    write_text(file, render_page(figures, title, refresh))
    return file
