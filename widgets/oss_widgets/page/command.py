"""`oss-lab page`: write a web page in which nano runs, as one file.

Open the file in a browser: it needs no server, no network and no installation. A guided path shows
how the model works, then everything can be tried freely. With --trace, the page also shows what a
trace file recorded. Such a page has at most 5 MB: points that do not fit are left out and named.
"""

from pathlib import Path
from typing import Annotated

from typer import Option

from oss_lab.cli._options import announce_replacement
from oss_lab.cli._warnings import print_warning


def run(
    out: Annotated[Path, Option(help="the HTML file to write")] = Path("nano.html"),
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="a trace to show, of `oss-lab trace` or `record`")
    ] = None,
) -> int:
    """Write a web page in which nano runs, as one file."""
    from oss_widgets.page.write import write_page

    with announce_replacement(out):
        left_out = write_page(out, trace)
    size = out.stat().st_size
    print(f"wrote {out} ({size / 1e6:.1f} MB); open it in a browser")
    if left_out:
        print_warning(f"left out of the trace, which is too large: {'; '.join(left_out)}")
    return 0
