"""`oss-lab notebooks DIR`: copy the notebooks into a folder of your own.

A file that is already there with the same content stays. One that differs is yours: it is never
replaced, unless you add --overwrite, and then each replaced file is named. Open the tour with
`oss-lab lab DIR/00_tour.ipynb`.
"""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from oss_lab.checkpoint.atomic import check_output_folder, replace_atomically
from oss_lab.course.notebook_files import TOUR, list_files
from oss_lab.errors import LabError


def run(
    folder: Annotated[Path, Argument(metavar="DIR", help="the folder to copy them into")],
    overwrite: Annotated[
        bool, Option("--overwrite", help="replace files that differ from the originals")
    ] = False,
) -> int:
    """Copy the notebooks into a folder of your own."""
    folder = folder.expanduser()
    check_output_folder(folder, "DIR")
    pairs = [(source, folder / name) for name, source in list_files()]
    differing = [copy for source, copy in pairs if copy.exists() and not is_same(source, copy)]
    if differing and not overwrite:
        names = ", ".join(str(file.relative_to(folder)) for file in differing)
        raise LabError(
            f"{folder} has other versions of {names}, and nothing was copied: choose another"
            " folder, or replace them with --overwrite"
        )
    for source, copy in pairs:
        if not copy.exists() or copy in differing:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replace_atomically(copy) as partial:
                shutil.copyfile(source, partial)
            print(f"{'replaced' if copy in differing else 'wrote'} {copy}")
    print(f"to open the tour: oss-lab lab {shlex.quote(str(folder / TOUR))}")
    return 0


def is_same(source: Path, copy: Path) -> bool:
    """Whether a file is an unchanged copy."""
    return copy.is_file() and copy.read_bytes() == source.read_bytes()
