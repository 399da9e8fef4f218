"""The page: one HTML file with nano, its views and a guided path. A browser needs nothing else.

The file contains the joined modules, the style sheets and, as text, nano's weights and vocabulary.
Its policy forbids every connection and every other script.
"""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.atomic import check_output_file, write_text
from oss_lab.errors import LabError
from oss_lab.version import __version__
from oss_widgets.join import join_modules, read_modules, read_styles

ASSETS = resources.files("oss_lab") / "assets" / "nano"
LIMIT = 5_000_000
"""The most bytes that a page with a trace has."""

MARK = '<meta name="generator" content="oss_lab'
POLICY = (
    "default-src 'none'; script-src '{}' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
"""No connection, and no script but the one with this hash. The page evaluates no text as code, but
tools that test pages do, such as Playwright's `wait_for_function`."""


def write_page(out: str | Path, trace: str | Path | None = None) -> list[str]:
    """Write a page in which nano runs; with a trace, a page that also shows what it recorded.

    A page with a trace has at most `LIMIT` bytes. What does not fit is left out, the points that
    are recorded on request before those that are always recorded, and large before small.

    Returns:
        What was left out of the trace, such as `attn.pattern in layers 2 to 3`. The page shows it.

    Raises:
        LabError: `out` cannot be written to or is a file other than a page, `trace` is not a trace
            that can be read, or its tokens alone exceed the limit.
    """
    out = to_path(out)
    check_output_file(out, "out")
    if out.exists() and out.stat().st_size and not is_page(out):
        raise LabError(f"{out} exists and is not a page of oss_lab; choose another file")
    page = build_page()
    left_out: list[str] = []
    if trace is not None:
        from oss_widgets.page.trace import fit_trace  # needs torch

        room = LIMIT - len(page.encode()) - 2000
        packed, left_out = fit_trace(trace, room * 3 // 4)
        page = build_page(Path(trace).name, packed, left_out)
    write_text(out, page)
    return left_out


def to_path(out: str | Path) -> Path:
    """The path of the file to write.

    Raises:
        LabError: it is not a path.
    """
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise LabError(f"expected the path of an HTML file, got {out!r}")
    return Path(out)


def is_page(path: Path) -> bool:
    """Whether a file is a page of any version."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(1000)


def build_page(
    trace_name: str | None = None, trace: bytes | None = None, left_out: Sequence[str] = ()
) -> str:
    """The text of the page; `trace` is a compressed trace file."""
    data = {**read_nano(), "traceName": trace_name, "leftOut": list(left_out)}
    script = build_script()
    digest = hashlib.sha256(script.encode()).digest()
    policy = POLICY.format(f"sha256-{to_base64(digest)}")
    blocks = [
        f'<script type="application/json" id="oss-data">{escape_json(data)}</script>',
        f'<script type="text/plain" id="oss-weights">{pack_weights()}</script>',
    ]
    if trace is not None:
        blocks.append(f'<script type="text/plain" id="oss-trace">{to_base64(trace)}</script>')
    return "\n".join([
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'{MARK} {__version__}">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>oss_lab: inside a language model</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{read_styles()}</style>",
        "</head>",
        '<body class="oss-page">',
        "<noscript>This page runs a language model, so it needs JavaScript.</noscript>",
        '<div id="oss-page">Starting the model …</div>',
        *blocks,
        f"<script>{script}</script>",
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip


def read_nano() -> dict[str, Any]:
    """What `LiveSource` in `js/source/live.js` needs besides the weights, as plain data."""
    from oss_widgets.page.gallery_data import build_gallery_data  # needs torch

    return {
        "config": json.loads((ASSETS / "config.json").read_text("utf-8")),
        "vocabulary": (ASSETS / "nano.tiktoken").read_text("ascii"),
        "gallery": build_gallery_data(),
    }


def pack_weights() -> str:
    """nano's safetensors file as base64 of gzip, as `unpack` in `js/page/data.js` reads it."""
    return to_base64(gzip.compress((ASSETS / "model.safetensors").read_bytes(), mtime=0))


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def escape_json(data: object) -> str:
    """JSON that does not end the element around it, whatever texts it has."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def build_script() -> str:
    """The joined modules, as a script that starts the page. No text in it ends its element."""
    script = join_modules(read_modules(), ["page/page.js"])
    script += '\nmodules["page/page.js"].startPage();\n'
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
