"""The curves of a fine-tuning run as one page, `curves.html`, which needs no network."""

import json
from pathlib import Path

from oss_lab.finetune.log import LOG, read_log
from oss_lab.finetune.recipe import RECIPE
from oss_lab.nano.training.records import read_text
from oss_lab.plots.page import render_page
from oss_lab.plots.training import gradient_norm, speed, training_loss


def write_curves(folder: Path) -> Path:
    """Write the page for the run in `folder`, at its end or during it.

    Raises:
        LabError: the folder has no run, or no step yet.
    """
    steps = read_log(folder / LOG)
    clip = json.loads(read_text(folder / RECIPE))["clip"]
    figures = [training_loss(steps), gradient_norm(steps, clip), speed(steps)]
    file = folder / "curves.html"
    file.write_text(render_page(figures, f"Training of {folder.resolve().name}"), encoding="utf-8")
    return file
