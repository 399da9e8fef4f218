"""Where the notebooks are, in an installed package and in a clone."""

from collections.abc import Iterator
from pathlib import Path

from oss_lab.errors import LabError

PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = (PACKAGE / "notebooks", PACKAGE.parent / "notebooks")
"""Where the notebooks are in an installed package, and in a clone."""
TOUR = "00_tour.ipynb"


def list_files() -> Iterator[tuple[Path, Path]]:
    """The path of each file in the folder of notebooks, and the file itself.

    Raises:
        LabError: this installation has no notebooks.
    """
    source = next((each for each in SOURCES if (each / TOUR).is_file()), None)
    if source is None:
        raise LabError("this installation has no notebooks: install oss-lab again")
    for pattern in ("*.ipynb", "*.md", "exercises/*.ipynb", "images/*"):
        for file in sorted(source.glob(pattern)):
            yield file.relative_to(source), file
