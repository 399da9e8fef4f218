"""Results of the kernel benchmarks as a page.

`python -m oss_lab.bench.kernel_page RESULTS... PAGE` writes it.
"""

import argparse
import json
import sys
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.kernel_speed import kernel_speed
from oss_lab.plots.page import page


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m oss_lab.bench.kernel_page", description=__doc__
    )
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of the bench")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    arguments = parser.parse_args()
    if arguments.page.suffix != ".html":
        parser.error(f"the page, {arguments.page}, must end in .html; results come before it")
    try:
        figures = [figure_of(file) for file in arguments.results]
        arguments.page.write_text(page(figures, "The kernels under gpt-oss"), encoding="utf-8")
    except (LabError, OSError) as error:
        print(f"oss_lab.bench.kernel_page: {error}", file=sys.stderr)
        return 1
    print(arguments.page)
    return 0


def figure_of(file: Path) -> Figure:
    """The figure of one result.

    Raises:
        LabError: the file is no result of the bench, or one of another version.
    """
    try:
        return kernel_speed(json.loads(file.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(
            f"{file} is no result of `python -m oss_kernels.bench --results`; give one that is"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
