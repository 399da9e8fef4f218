"""Tests in a real JupyterLab and a real Chromium, both private: nothing of the user's is touched.

The server is our own `oss-lab lab --no-browser`, with its token, on a new folder. Starting a server
takes as long as a short test, so all tests of a process share one. Each test has its own subfolder,
JupyterLab workspace and browser profile, and its kernels are shut down when it ends.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# Without this setting, JupyterLab keeps only the visible cells in the page.
TRACKER_SETTINGS = '{"windowingMode": "none"}'
START_LIMIT = 120  # seconds for a server, a page or a kernel to start
RUN_LIMIT = 360_000  # milliseconds for a whole notebook
BROKEN_WIDGET = "Error displaying widget|Failed to initialize model|Click to show javascript error"


@dataclass(frozen=True)
class LabServer:
    """A running JupyterLab: its folder, its address with the final slash, and its token."""

    folder: Path
    url: str
    token: str

    def address(self, notebook: Path) -> str:
        """The URL that opens `notebook` in its own workspace: a shared one reopens earlier
        notebooks."""
        path = notebook.relative_to(self.folder)
        workspace = quote(str(path.parent), safe="")
        return f"{self.url}lab/workspaces/{workspace}/tree/{quote(str(path))}?token={self.token}"

    def request(self, path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = Request(f"{self.url}api/{path}", method=method, headers=headers)
        with urlopen(request, timeout=START_LIMIT) as response:
            return response.read()

    def shut_down_kernels(self) -> None:
        for session in json.loads(self.request("sessions")):
            self.request(f"sessions/{session['id']}", "DELETE")


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """One JupyterLab for all tests of this process."""
    private = tmp_path_factory.mktemp("jupyter")
    folder = tmp_path_factory.mktemp("served")
    first = folder / "first.ipynb"  # `oss-lab lab` serves the folder of an existing notebook
    first.touch()
    environment = private_environment(private)
    log = private / "server.log"
    with log.open("wb") as output:
        command = f"-m oss_lab lab --no-browser --port {free_port()}".split()
        process = subprocess.Popen(
            [sys.executable, *command, str(first)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=private,
        )
    try:
        url, token = wait_for_server(process, Path(environment["JUPYTER_RUNTIME_DIR"]), log)
        yield LabServer(folder, url, token)
    finally:
        process.terminate()  # Jupyter stops its kernels on SIGTERM
        process.wait(timeout=60)


def private_environment(root: Path) -> dict[str, str]:
    folders = {
        "JUPYTER_CONFIG_DIR": root / "config",
        "JUPYTER_DATA_DIR": root / "data",
        "JUPYTER_RUNTIME_DIR": root / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": root / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": root / "workspaces",
        "IPYTHONDIR": root / "ipython",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    tracker = root / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(TRACKER_SETTINGS)
    # Two threads that compete for one core take twenty times as long on a busy machine.
    return os.environ | {name: str(folder) for name, folder in folders.items()} | ONE_THREAD


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_server(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> tuple[str, str]:
    """(address, token): the server writes both into its runtime folder once it listens."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
        for found in runtime.glob("jpserver-*.json"):
            text = found.read_text()
            if text.strip().endswith("}"):  # the file is complete
                information = json.loads(text)
                return information["url"], information["token"]
        time.sleep(0.1)
    raise AssertionError(
        f"the server did not answer within {START_LIMIT} s:\n{log.read_text()[-3000:]}"
    )


@pytest.fixture
def notebook_folder(lab_server: LabServer) -> Path:
    """The folder for this test's notebooks, inside the server's folder. It does not exist yet."""
    return lab_server.folder / f"test-{len(list(lab_server.folder.iterdir()))}"


@pytest.fixture
def open_notebook(chromium, lab_server: LabServer):
    """open_notebook(path in `notebook_folder`) -> the Playwright page that shows it, its kernel
    idle."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(1000 * START_LIMIT)

    def open_page(notebook: Path):
        page = context.new_page()
        page.goto(lab_server.address(notebook))
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        # Before a kernel is attached, JupyterLab silently ignores Run All (jupyterlab#8490).
        idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle"))
        idle.first.wait_for()
        return page

    yield open_page
    context.close()
    lab_server.shut_down_kernels()


@pytest.fixture(scope="session")
def run_all():
    """run_all(page): runs all cells; see `run_all_cells`."""
    return run_all_cells


@pytest.fixture(scope="session")
def error_texts():
    """error_texts(page): what went wrong; see `find_error_texts`."""
    return find_error_texts


def run_all_cells(page) -> None:
    """Choose Run > Run All Cells, then wait until every code cell has a number or one has
    failed.
    """
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        r"""() => {
            const cells = [...document.querySelectorAll('.jp-CodeCell')];
            const numbered = c => /\[\d+\]:/.test(c.querySelector('.jp-InputPrompt').textContent);
            const error = '[data-mime-type="application/vnd.jupyter.stderr"]';
            return cells.length > 0 && (cells.every(numbered) || document.querySelector(error));
        }""",
        timeout=RUN_LIMIT,
    )


def find_error_texts(page) -> list[str]:
    """Tracebacks, anything else on stderr, and widgets that could not be shown.

    JupyterLab needs a moment to find that it cannot show a widget, so this waits for each of them.
    """
    page.wait_for_function(
        """() => ![...document.querySelectorAll('.jp-OutputArea-output')].some(
            output => output.textContent.startsWith('Loading widget'))"""
    )
    stderr = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
    broken = page.locator(".jp-OutputArea-output").filter(has_text=re.compile(BROKEN_WIDGET))
    return stderr.all_inner_texts() + broken.all_inner_texts()
