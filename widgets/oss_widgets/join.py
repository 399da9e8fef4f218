"""Join the ES modules of `widgets/oss_widgets/js` into one script that imports nothing.

A page that is opened as a file cannot import modules, and a widget is a single file. So each module
becomes a function that runs once and returns its exports, and each import becomes a destructuring
of such a result. The result declares one name, `modules`: the exports of every module, by path.

Only the forms that the modules use are supported: `import { a, b as c } from "./x.js";` and an
`export` in front of a function, a class or a `const`. Anything else is refused, since a line that
is silently left out would give another program. A joined script is JavaScript, not HTML: whoever
writes it into a page must escape `</script`.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).with_name("js")

IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"(\.[^"]*)";', re.MULTILINE)
EXPORT = re.compile(r"^export\s+((?:async\s+)?function\s*\*?|class|const)\s+([\w$]+)", re.MULTILINE)
LEFT_OVER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def read_modules(folder: Path = FOLDER) -> dict[str, str]:
    """The text of every module in a folder, by its path inside the folder."""
    files = sorted(folder.rglob("*.js"))
    return {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in files}


def read_styles(folder: Path = FOLDER) -> str:
    """The style sheets of a folder as one text; `theme.css`, which the others use, comes first."""
    files = sorted(folder.rglob("*.css"), key=lambda file: (file.name != "theme.css", file))
    return "\n".join(file.read_text("utf-8") for file in files)


def join_modules(modules: Mapping[str, str], entries: Sequence[str] | None = None) -> str:
    """One script with these modules and all that they import; None joins every module.

    Raises:
        ValueError: a module is missing, two import each other, or a form is not supported.
    """
    ordered: list[str] = []
    for name in modules if entries is None else entries:
        _add(name, modules, ordered, [])
    parts = [_wrap(name, modules[name]) for name in ordered]
    return "\n".join(["const modules = {};", *parts])


def _add(name: str, modules: Mapping[str, str], ordered: list[str], path: list[str]) -> None:
    """Append a module to `ordered`, after the modules that it imports."""
    if name in ordered:
        return
    if name in path:
        raise ValueError(f"modules import each other: {' -> '.join([*path, name])}")
    if name not in modules:
        raise ValueError(f"{path[-1] if path else 'the script'} needs {name}, which does not exist")
    for _, target in IMPORT.findall(modules[name]):
        _add(resolve(name, target), modules, ordered, [*path, name])
    ordered.append(name)


def resolve(name: str, target: str) -> str:
    """The path of an imported module.

    >>> resolve("engine/cache.js", "../model/norm.js")
    'model/norm.js'
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _wrap(name: str, text: str) -> str:
    """A module as a statement that runs it and stores its exports."""

    def destructure(match: re.Match[str]) -> str:
        names = re.sub(r"\s+as\s+", ": ", match[1]).strip()
        return f'const {{ {names} }} = modules["{resolve(name, match[2])}"];'

    exports = [found for _, found in EXPORT.findall(text)]
    body = EXPORT.sub(r"\1 \2", IMPORT.sub(destructure, text))
    if left_over := LEFT_OVER.search(body):
        raise ValueError(f"{name} has a form that cannot be joined: {left_over[0]}")
    return (
        f'modules["{name}"] = (() => {{\n"use strict";\n{body}\n'
        f"return {{ {', '.join(exports)} }};\n}})();"
    )
