"""`oss-lab course report`, `reset` and `solutions`: what learners did, a new start, and solutions.

A learner's files, `my_parts.py` and `my_progress.json`, are in the folder of the notebooks.
"""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

app = Typer(short_help="Report on learners, start again, write solutions.")


@app.command("report", short_help="Show what is done and what is left.")
def report(
    folder: Annotated[
        Path | None,
        Argument(
            metavar="DIR",
            help="a folder with one folder per learner, or your own notebooks; default: this one",
        ),
    ] = None,
    run: Annotated[
        bool, Option("--run", help="run the learners' code on this machine, within limits")
    ] = False,
) -> int:
    """Print one line per learner: parts done, checks passed, and the last diagnosis.

    In the folder of your own notebooks, it also prints which exercises of each sheet are left.
    Without --run, the line repeats what the learner's own notebooks recorded. With it, every part
    is checked again, in a process with 60 seconds and 4 GiB of memory. That process is no sandbox:
    it may read and write your files, so use it only with learners whom you trust.
    """
    from oss_lab.course.progress import find_folder
    from oss_lab.course.report import report_folder

    for line in report_folder(folder or find_folder(), run=run):
        print(line, flush=True)
    return 0


@app.command("reset", short_help="Start again, with a backup.")
def reset(
    folder: Annotated[
        Path | None, Argument(metavar="DIR", help="the folder of the notebooks; default: this one")
    ] = None,
) -> int:
    """Move your parts and your progress to numbered backups."""
    from oss_lab.course.progress import find_folder, reset

    folder = folder or find_folder()
    backups = reset(folder)
    nothing = f"there was nothing to reset in {folder.resolve()}: no exercise was checked there"
    print(*[f"kept {each}" for each in backups] or [nothing], sep="\n")
    return 0


@app.command("solutions", short_help="Write the exercises with solutions.")
def solutions(
    folder: Annotated[Path, Argument(metavar="DIR", help="a new or empty folder")],
) -> int:
    """Write every sheet of exercises with its solutions, for teachers.

    Nothing is replaced: a folder that has sheets already may have a learner's work.
    """
    from oss_lab.course.exercises import list_sheets
    from oss_lab.course.write_sheets import write_sheets
    from oss_lab.errors import LabError

    names = (f"{sheet.lesson}.ipynb" for sheet in list_sheets())
    if there := [name for name in names if (folder / name).exists()]:
        raise LabError(
            f"{folder} has a {there[0]} already, and nothing was written: choose another"
        )
    for file in write_sheets(folder, solutions=True):
        print(f"wrote {file}")
    return 0
