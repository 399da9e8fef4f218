"""The Python tool as a model uses it: a notebook that keeps its state, in every sandbox here."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oss_lab.agents.sandbox import Limits, PythonSandbox, Result
from oss_lab.errors import LabError

MIB = 1 << 20
NAMES = ("sandlock", "bubblewrap", "unsafe: none")


@pytest.fixture(scope="module", params=NAMES)
def tool(request: pytest.FixtureRequest) -> Iterator[PythonSandbox]:
    with start(request.param, Limits(seconds=20, output=1000)) as sandbox:
        yield sandbox


def start(name: str, limits: Limits) -> PythonSandbox:
    """The named sandbox; skips the test if it does not run here."""
    try:
        return PythonSandbox(use=name, unsafe=name.startswith("unsafe"), limits=limits)
    except LabError as error:
        pytest.skip(f"{name} does not run here: {error}")


def test_it_reports_what_confines_the_code(tool: PythonSandbox) -> None:
    assert tool.sandbox in NAMES


def test_variables_and_imports_are_kept(tool: PythonSandbox) -> None:
    assert tool.run("import math\nx = 20").text == "[no output]"
    assert tool.run("def double(n):\n    return 2 * n\ndouble(x) + math.floor(2.5)").text == "42"
    assert tool.run("_ + 1").value == "43"
    assert tool.run("import sys; sys.modules['__main__'].x").value == "20"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1 + 1", "2"),
        ("1 + 1;", "[no output]"),
        ("None", "[no output]"),
        ("x = 3", "[no output]"),
        ("", "[no output]"),
        ("# only a comment", "[no output]"),
        ("print('a')\n'b'", "a\n'b'"),
        ("print('no newline', end='')\n7", "no newline7"),
        (
            "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')",
            "one\ntwo\nthree",
        ),
        ("import sys; sys.stdout.buffer.write(b'bytes\\n');", "bytes"),
        ("import os; os.write(1, b'past Python\\n');", "past Python"),
        ("import asyncio\nawait asyncio.sleep(0)\n'awaited'", "'awaited'"),
        ("async def f():\n    return 5\nawait f()", "5"),
        ("input()", "EOFError: EOF when reading a line"),
        ("'\\ud800'; print('\\ud800')", "\\ud800"),
        ("'中文 👍'", "'中文 👍'"),
        ("if True:\n    'not shown'", "[no output]"),
    ],
)
def test_a_cell_shows_what_a_notebook_shows(tool: PythonSandbox, code: str, text: str) -> None:
    assert tool.run(code).text.endswith(text)


def test_the_streams_are_separate(tool: PythonSandbox) -> None:
    result = tool.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n1/0")
    assert (result.stdout, result.stderr, result.value) == ("out\n", "err\n", "")
    assert result.error.endswith("ZeroDivisionError: division by zero\n")
    assert not result.ok
    assert result.ended is None
    assert result.pieces[0] == ("stdout", "out\n")


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("open('/mnt/data/nowhere')", "No such file or directory: '/mnt/data/nowhere'"),
        ("import sys; sys.exit(2)", "SystemExit: 2"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = '\\0'\neval(x)", "source code string cannot contain null bytes"),
        ("def f():\n    f()\nf()", "RecursionError: maximum recursion depth exceeded"),
        (
            "class E(Exception):\n    def __str__(self): raise self\nraise E",
            "<exception str() failed>",
        ),
    ],
)
def test_an_error_is_text_and_the_process_lives(tool: PythonSandbox, code: str, last: str) -> None:
    tool.run("before = 1")
    result = tool.run(code)
    assert result.error.rstrip("\n").endswith(last)
    assert "oss_lab" not in result.error
    assert tool.run("before").value == "1"


def test_a_traceback_shows_the_lines_of_the_cell(tool: PythonSandbox) -> None:
    tool.run("def broken():\n    return [][3]")
    error = tool.run("x = 1\nbroken()").error
    assert "line 2, in broken\n    return [][3]" in error
    assert "line 2, in <module>\n    broken()" in error


def test_output_is_cut_with_a_count(tool: PythonSandbox) -> None:
    result = tool.run("print('a' * 600)\nprint('b' * 600)")
    assert result.stdout == "a" * 600 + "\n" + "b" * 399
    assert result.cut == 202
    assert result.text.endswith("[output cut: 1,000 characters are shown, 202 more are not]")


def test_an_error_is_shown_after_output_that_was_cut(tool: PythonSandbox) -> None:
    result = tool.run("print('a' * 5000)\nraise ValueError('the reason')")
    assert "ValueError: the reason" in result.text


def test_what_is_written_past_python_is_counted_too(tool: PythonSandbox) -> None:
    result = tool.run("import os\nfor _ in range(50): os.write(2, b'x' * 100);")
    assert (len(result.stdout), result.cut) == (1000, 4000)


@pytest.mark.parametrize("path", ["/mnt/data/note.txt", "note.txt"])
def test_files_in_mnt_data_are_kept(tool: PythonSandbox, path: str) -> None:
    tool.run(f"open({path!r}, 'w').write('kept')")
    assert tool.run("open('/mnt/data/note.txt').read()").value == "'kept'"
    assert tool.files() == {"note.txt": 4}
    assert tool.read_file("note.txt") == b"kept"
    assert tool.run("import os; os.getcwd(), os.listdir('/mnt/data')").value == (
        "('/mnt/data', ['note.txt'])"
    )
    tool.run("os.remove('/mnt/data/note.txt')")


@pytest.mark.parametrize(
    "code",
    [
        "import pathlib; p = pathlib.Path('/mnt/data/a.txt'); p.write_text('1'); p.read_text()",
        "import shutil; open('a.txt', 'w').write('1'); shutil.copy2('/mnt/data/a.txt', 'b.txt'); "
        "open('/mnt/data/b.txt').read()",
        "import os, shutil; os.makedirs('/mnt/data/d/e'); open('/mnt/data/d/e/f', 'w').write('1'); "
        "x = open('d/e/f').read(); shutil.rmtree('/mnt/data/d'); x",
        "import os; open('/mnt/data/x', 'w').write('1'); os.rename('/mnt/data/x', '/mnt/data/y'); "
        "open(os.path.realpath('y')).read()",
        "import tempfile; f = tempfile.NamedTemporaryFile('w+'); f.write('1'); f.seek(0); f.read()",
        "import sqlite3; c = sqlite3.connect('base.db'); str(c.execute('select 1').fetchone()[0])",
        "import numpy as np; np.save('/mnt/data/n.npy', np.ones(1, int)); "
        "str(np.load('/mnt/data/n.npy')[0])",
    ],
)
def test_ordinary_code_works(tool: PythonSandbox, code: str) -> None:
    result = tool.run(code)
    assert result.value == "'1'", result.text


def test_a_file_of_the_user_can_be_read(tool: PythonSandbox) -> None:
    tool.write_file("table.csv", b"1,2\n")
    assert tool.run("open('/mnt/data/table.csv').read()").value == "'1,2\\n'"
    for name in ("../x", "a/b", "", "..", "a\\b"):
        with pytest.raises(LabError, match="expected a file name"):
            tool.write_file(name, b"")


def test_a_file_of_the_user_that_is_too_large_is_refused() -> None:
    with PythonSandbox(unsafe=True, limits=Limits(disk=MIB)) as tool:
        tool.write_file("small", b"x")
        with pytest.raises(LabError, match=r"'large' is not kept, since /mnt/data held 2\.0 MiB"):
            tool.write_file("large", os.urandom(2 * MIB))
        assert tool.files() == {"small": 1}


def test_threads_work(tool: PythonSandbox) -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: total = sum(pool.map(lambda n: n * n, range(10)))\n"
        "total"
    )
    assert tool.run(code).value == "285"


def test_it_can_be_called_from_a_thread_that_ends(tool: PythonSandbox) -> None:
    """The kernel ends a child with the thread that started it, which must not be the caller's."""
    results: list[Result] = []
    for code in ("import os; os._exit(0)", "y = 5", "y"):
        thread = threading.Thread(target=lambda code=code: results.append(tool.run(code)))
        thread.start()
        thread.join()
        time.sleep(0.1)
    assert results[-1].value == "5"


@pytest.mark.parametrize("name", NAMES)
def test_a_time_out_restarts_the_process_and_says_so(name: str) -> None:
    with start(name, Limits(seconds=0.5)) as tool:
        tool.run("x = 1\nopen('kept.txt', 'w').write('y')")
        result = tool.run("print('so far')\nwhile True: pass")
        assert result.text == (
            "so far\n[timed out after 0.5 seconds and was killed; a new process replaces it: all "
            "variables and imports are gone, files in /mnt/data are kept]"
        )
        assert "NameError: name 'x' is not defined" in tool.run("x").error
        assert tool.run("open('kept.txt').read()").value == "'y'"


def test_the_death_of_the_process_is_reported(tool: PythonSandbox) -> None:
    tool.run("x = 1")
    assert "process ended (it exited with code 7)" in tool.run("import os; os._exit(7)").text
    assert "NameError" in tool.run("x").error
    crash = tool.run("import os; os.write(2, b'last words'); os.abort()")
    assert "last words" in crash.text
    # Signals that have no handler do not reach the first process of a namespace; `abort` insists.
    assert ("SIGSEGV" if tool.sandbox == "bubblewrap" else "SIGABRT") in crash.text


@pytest.mark.parametrize("name", NAMES)
def test_closing_ends_the_process_and_deletes_the_files(name: str) -> None:
    with start(name, Limits()) as tool:
        tool.run("import os; os.makedirs('a/b'); open('a/b/c', 'w').write('x')")
        folder = tool._state.data.path
        assert (folder / "a/b/c").is_file()
    assert not folder.exists()
    with pytest.raises(LabError, match="is closed"):
        tool.run("1")
    tool.close()


def test_memory_is_limited() -> None:
    for name in ("sandlock", "bubblewrap"):
        with (
            contextlib.suppress(pytest.skip.Exception),
            start(name, Limits(memory=256 * MIB)) as tool,
        ):
            assert "MemoryError" in tool.run("x = bytearray(300 << 20)").error
            assert tool.run("len(bytearray(10 << 20))").value == str(10 << 20)


def test_an_interrupt_of_the_caller_ends_the_process(
    tool: PythonSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.run("x = 1")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("oss_lab.agents.sandbox.worker.Worker.take", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tool.run("x")
    assert "NameError" in tool.run("x").error


@pytest.mark.parametrize("name", NAMES)
def test_no_process_outlives_its_parent(name: str, tmp_path: Path) -> None:
    start(name, Limits()).close()
    program = (
        "import os, signal, sys\n"
        "from oss_lab.agents.sandbox import PythonSandbox\n"
        f"s = PythonSandbox(use={name!r}, unsafe={name.startswith('unsafe')})\n"
        "print(s._state.data.path, *s.run('import os; os.getpid()').value.split(), flush=True)\n"
        "print(s._state.worker.process.proc, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, proc = done.stdout.splitlines()
    folder, own_pid = first.split()
    directory = Path(f"/proc/{own_pid}" if proc == "None" else proc)
    until = time.monotonic() + 5
    while directory.exists() and "(zombie)" not in (directory / "status").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.rmdir(folder)


def test_a_call_can_have_less_time(tool: PythonSandbox) -> None:
    assert "timed out after 0.3 seconds" in tool.run("while True: pass", seconds=0.3).text
    with pytest.raises(LabError, match="seconds must be a number above 0, got -1"):
        tool.run("1", seconds=-1)


def test_a_call_can_be_canceled_from_another_thread(tool: PythonSandbox) -> None:
    tool.cancel()  # nothing runs
    tool.run("x = 1")
    canceler = threading.Timer(0.3, tool.cancel)
    canceler.start()
    result = tool.run("print('so far')\nwhile True: pass")
    canceler.join()
    assert result.text.startswith("so far\n[canceled and killed; a new process replaces it")
    assert tool.run("1 + 1").value == "2"


def test_nothing_of_the_parent_is_inherited(
    tool: PythonSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSS_LAB_SECRET", "token-7")
    (tmp_path / "secret").write_text("token-8")
    with open(tmp_path / "secret") as file:
        os.set_inheritable(file.fileno(), True)
        tool.run("import os; os._exit(0)")  # the next call starts a process
        code = (
            "import os\nfound = [str(dict(os.environ))]\n"
            "for number in range(3, 200):\n"
            "    try:\n        found.append(os.pread(number, 100, 0))\n"
            "    except OSError: pass\n"
            "print(found)"
        )
        text = tool.run(code).text
        inherited = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, close_fds=False
        ).stdout
    assert "token" not in text
    assert "HOME" in text
    assert "token-7" in inherited
    assert "token-8" in inherited


def test_python_ends_without_close(tmp_path: Path) -> None:
    program = (
        "from oss_lab.agents.sandbox import PythonSandbox\n"
        "s = PythonSandbox(unsafe=True); print(s._state.data.path); s.run('x = 1')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(done.stdout.strip()).exists()


def test_code_must_be_text(tool: PythonSandbox) -> None:
    with pytest.raises(LabError, match="expected Python code as text, got NoneType"):
        tool.run(None)  # pyright: ignore[reportArgumentType]
