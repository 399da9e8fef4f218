"""`python -m oss_widgets.book`: build the book of this repository.

It is a folder of plain files: open `index.html` in a browser, or copy the folder to any server.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from oss_lab.errors import LabError
from oss_widgets.book.stage import stage_book

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "notebooks" / "book"


def build_book(out: Path) -> None:
    """Write the book to `out`; an earlier book there is replaced once the new one is complete.

    Raises:
        LabError: this is not a clone of the repository, Sphinx is not installed, `out` is something
            else than a book, or a page has a mistake, such as a broken link.
    """
    if not (SOURCES / "conf.py").is_file():
        raise LabError(f"{SOURCES} does not exist; build the book in a clone of the repository")
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        raise LabError('the book needs Sphinx: pip install "oss-lab[book]"') from None
    if out.exists() and not (out.is_dir() and (is_book(out) or not any(out.iterdir()))):
        raise LabError(f"{out} exists and is not a book; choose another folder")
    with tempfile.TemporaryDirectory(prefix="oss-book-") as folder:
        pages, cache, html = (Path(folder) / name for name in ("pages", "cache", "html"))
        for line in stage_book(ROOT, pages):
            print(line, flush=True)
        options = ["-W", "--keep-going", "-c", str(SOURCES), "-d", str(cache)]
        options += ["-D", f"nb_execution_cache_path={cache}"]
        if build_main([*options, str(pages), str(html)]):
            raise LabError("the book has mistakes; Sphinx named them above")
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(html, out)


def is_book(folder: Path) -> bool:
    """Whether Sphinx wrote a folder."""
    return (folder / ".buildinfo").is_file()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the book: the course as a web site.")
    parser.add_argument("--out", type=Path, default=SOURCES / "_build", help="the folder to write")
    out = parser.parse_args(arguments).out.resolve()
    begin = time.monotonic()
    try:
        build_book(out)
    except LabError as error:
        print(f"oss_widgets.book: {error}", file=sys.stderr)
        return 1
    files = [file for file in out.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    seconds = time.monotonic() - begin
    print(f"{len(files)} files, {size:.1f} MB, in {seconds:.0f} s; open {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
