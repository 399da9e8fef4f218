"""Write an HTML page from results of the kernel benchmarks.

Run `python -m oss_lab.bench.kernel_page RESULTS... PAGE`.
"""

import argparse
import json
import sys
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.kernel_speed import kernel_speed
from oss_lab.plots.page import render_page


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m oss_lab.bench.kernel_page", description=__doc__
    )
    parser.add_argument("results", nargs="+", type=Path, help="JSON files from the benchmark")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    arguments = parser.parse_args()
    if arguments.page.suffix != ".html":
        parser.error(
            f"the last argument must be the page to write, an .html file, not {arguments.page}"
        )
    try:
        figures = [load_figure(file) for file in arguments.results]
        arguments.page.write_text(
            render_page(figures, "The kernels under gpt-oss"), encoding="utf-8"
        )
    except (LabError, OSError) as error:
        print(f"oss_lab.bench.kernel_page: {error}", file=sys.stderr)
        return 1
    print(arguments.page)
    return 0


def load_figure(file: Path) -> Figure:
    """The figure of one result file.

    Raises:
        LabError: the file is not a result of the benchmark, or is from another version.
    """
    try:
        return kernel_speed(json.loads(file.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(
            f"{file} is not a result of `python -m oss_kernels.bench --results`; "
            "pass a JSON file that it wrote"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
