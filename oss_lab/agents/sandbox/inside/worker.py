"""The Python process that runs the model's code. Its variables last as long as it does.

It reads requests from standard input and answers on standard output, in frames: four bytes with a
length, then that many bytes of JSON. What the code prints goes into frames as well. What it writes
past Python, to descriptors 1 and 2, goes to standard error. The code runs in this very process, so
it can write frames as well: the parent trusts none of them.
"""

import ast
import inspect
import json
import linecache
import os
import struct
import sys
import threading
import traceback
import types

from oss_lab.agents.sandbox.inside.data_paths import name_data_folder
from oss_lab.agents.sandbox.inside.streams import FrameStream, OutputBudget

HEADER = struct.Struct(">I")
TRACEBACK = 8000  # characters kept of a traceback: the last ones, which name the error


class Channel:
    """Frames from and to the parent."""

    def __init__(self) -> None:
        self.requests, self.answers, self.raw = os.dup(0), os.dup(1), os.dup(2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        self.cell = ""  # the id of the request that is being answered
        self.lock = threading.Lock()

    def receive(self) -> dict:
        (length,) = HEADER.unpack(self.read(HEADER.size))
        return json.loads(self.read(length))

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = os.read(self.requests, count - len(data))
            if not more:
                os._exit(0)  # the parent closed the pipe or is gone
            data += more
        return data

    def send(self, kind: str, **fields: object) -> None:
        data = json.dumps({"kind": kind, "id": self.cell, **fields}).encode()
        data = HEADER.pack(len(data)) + data
        with self.lock:
            while data:
                data = data[os.write(self.answers, data) :]

    def end_raw(self) -> None:
        """Mark the end of a call in the raw stream too: the parent then knows it has it all."""
        os.write(self.raw, b"\0" + self.cell.encode() + b"\0")


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    channel = Channel()
    settings = channel.receive()
    try:
        prepare(settings)
    except Exception as error:
        channel.send("failed", reason=f"{type(error).__name__}: {error}")
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "oss_lab"]:
        del sys.modules[name]  # the code may import oss_lab itself, where it is installed
    budget = OutputBudget(settings["output"], channel.send)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - open as long as the process is
    streams = FrameStream("stdout", 1, budget), FrameStream("stderr", 2, budget)
    sys.stdout, sys.stderr = streams
    notebook = types.ModuleType("__main__")
    sys.modules["__main__"] = notebook
    channel.send("ready")
    cells = 0
    while True:
        request = channel.receive()
        cells += 1
        channel.cell = request["id"]
        budget.renew()
        error = run_cell(request["code"], f"<cell {cells}>", notebook.__dict__, streams)
        for stream in streams:
            stream.flush()
        for start in range(0, len(error), 4000):
            channel.send("text", stream="error", text=error[start : start + 4000])
        channel.send("done", ok=not error, cut=budget.cut)
        channel.end_raw()


def prepare(settings: dict) -> None:
    """Give up rights, enter the data folder and make packages importable."""
    if settings["lock"]:
        from oss_lab.agents.sandbox.inside.lock import lock_down

        lock_down(settings["memory"], settings["file_size"], settings["open_files"])
    os.chdir(settings["folder"])
    if settings["folder"] != settings["name"]:
        name_data_folder(settings["folder"])
    sys.path += settings["packages"]


def run_cell(code: str, name: str, variables: dict, streams: tuple[FrameStream, ...]) -> str:
    """Run one cell and print its last expression; the traceback, or "" if it ran through."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    try:
        tree = compile(code, name, "exec", ast.PyCF_ONLY_AST)
        assert isinstance(tree, ast.Module)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        execute(tree, name, "exec", variables)
        if isinstance(last, ast.Expr):
            value = execute(ast.Expression(last.value), name, "eval", variables)
            if value is not None and not code.rstrip().endswith(";"):
                variables["_"] = value
                shown = repr(value)
                for stream in streams:
                    stream.flush()
                streams[0].budget.spend("value", f"{shown}\n")
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a cell, not the process
        return explain(error)
    return ""


def execute(tree: ast.Module | ast.Expression, name: str, mode: str, variables: dict) -> object:
    """Run a tree as a notebook does, where `await` may be used outside functions."""
    code = compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # pyright: ignore
    result = eval(code, variables)
    if code.co_flags & inspect.CO_COROUTINE:
        import asyncio

        return asyncio.run(result)
    return result


def explain(error: BaseException) -> str:
    """The traceback of an error without the worker's own lines."""
    try:
        summary = traceback.TracebackException.from_exception(error)
        leave_out_worker(summary)
        text = "".join(summary.format())
    except BaseException:
        text = f"{type(error).__name__} (its traceback cannot be shown)\n"
    return text if len(text) <= TRACEBACK else f"…{text[-TRACEBACK:]}"


def leave_out_worker(summary: traceback.TracebackException) -> None:
    """Remove the frames of this program from a traceback and from those it was raised from."""
    own = os.path.dirname(__file__)
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [summary]
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        if part.stack is not None:
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(own)]
        waiting += [part.__cause__, part.__context__]
