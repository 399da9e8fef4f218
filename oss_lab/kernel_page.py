"""`python -m oss_lab.kernel_page RESULTS... PAGE`: results of `oss_kernels.bench` as a page."""

import argparse
import json
import sys
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.plots.kernel_speed import kernel_speed
from oss_lab.plots.page import page


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m oss_lab.kernel_page", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of the bench")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    arguments = parser.parse_args()
    try:
        figures = [kernel_speed(read_result(file)) for file in arguments.results]
        arguments.page.write_text(page(figures, "The kernels under gpt-oss"), encoding="utf-8")
    except (LabError, OSError) as error:
        print(f"oss_lab.kernel_page: {error}", file=sys.stderr)
        return 1
    print(arguments.page)
    return 0


def read_result(file: Path) -> dict:
    """A result of the bench.

    Raises:
        LabError: the file is none.
    """
    try:
        found = json.loads(file.read_text())
        if found["rows"]:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise LabError(
        f"{file} is no result of `python -m oss_kernels.bench --results`; give one that is"
    )


if __name__ == "__main__":
    sys.exit(main())
