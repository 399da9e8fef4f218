"""`Python`: the built-in tool `python` of gpt-oss, as a toolbox over a sandbox.

Each run gets a fresh process; a session keeps one, with its variables. Every call notes which
sandbox was in force. The call of this tool is the code itself, not JSON. Models still write
`{"code": "..."}` at times, which is read as its code, with a note.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, Protocol

from oss_lab.agents.tool import Noted, Tool
from oss_lab.harmony.builtin_tools import PYTHON
from oss_lab.harmony.messages import ToolDescription, ToolNamespace

WRAPPERS = ("code", "input", "source", "script")


class Outcome(Protocol):
    """What one call printed."""

    @property
    def text(self) -> str: ...


class Sandbox(Protocol):
    """A stateful Python process."""

    @property
    def sandbox(self) -> str: ...

    def run(self, code: str) -> Outcome: ...

    def close(self) -> None: ...


class Python:
    """A toolbox with the tool `python`.

    Args:
        start: starts the process of a run; by default `PythonSandbox(**options)`.
        options: of `PythonSandbox`, such as `limits` and `unsafe`.
    """

    def __init__(self, start: Callable[[], Sandbox] | None = None, **options: Any) -> None:
        self._start, self._options = start, options

    @property
    def namespace(self) -> ToolNamespace:
        return PYTHON

    @contextmanager
    def open(self) -> Iterator[Mapping[str, Tool]]:
        """A new process, as the tool `python`.

        Raises:
            LabError: no sandbox works here.
        """
        with closing(self._start() if self._start else self._start_sandbox()) as sandbox:

            def run(text: str) -> Noted:
                code, notes = read_code(text)
                output = sandbox.run(code).text
                return Noted(output, (*notes, f"sandbox: {sandbox.sandbox}"))

            yield {PYTHON.name: Tool(ToolDescription(PYTHON.name), run, reads_text=True)}

    def _start_sandbox(self) -> Sandbox:
        """The default. It is imported here, since most agents run no code."""
        return import_module("oss_lab.agents.sandbox").PythonSandbox(**self._options)


def read_code(text: str) -> tuple[str, tuple[str, ...]]:
    """The code of a call, and a note if it was wrapped in JSON.

    >>> read_code("print(1)")
    ('print(1)', ())
    >>> read_code('{"code": "print(1)"}')[0]
    'print(1)'
    """
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return text, ()
        if isinstance(value, dict) and len(value) == 1:
            ((name, code),) = value.items()
            if name in WRAPPERS and isinstance(code, str):
                return code, (f"the code was in a JSON object, under {name!r}",)
    return text, ()
