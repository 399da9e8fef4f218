"""A real JupyterLab and a real Chromium, both private: nothing of the user's is read or written.

The server is our own `oss-lab lab --no-browser`, with its token, over a copy of the notebook's
folder. Without Chromium or Playwright the tests are skipped and say so.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = [  # no traffic of its own, no first-run pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# Without it JupyterLab keeps only the visible cells in the page.
TRACKER_SETTINGS = '{"windowingMode": "none"}'


@pytest.fixture(scope="session")
def chromium():
    """A Playwright Browser on the machine's own Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (the extra `test` holds it)"
    )
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class LabServer:
    """A running JupyterLab: its address with the final slash, and its token."""

    url: str
    token: str

    def address(self, notebook: str) -> str:
        return f"{self.url}lab/tree/{quote(notebook)}?token={self.token}"


@pytest.fixture
def start_lab(tmp_path: Path) -> Iterator[Callable[[Path], LabServer]]:
    """start_lab(notebook) serves that notebook's folder in place; stopped after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(notebook: Path) -> LabServer:
        environment = private_environment(tmp_path / "jupyter")
        with (tmp_path / "server.log").open("wb") as log:
            command = f"-m oss_lab lab --no-browser --port {free_port()}".split()
            process = subprocess.Popen(
                [sys.executable, *command, str(notebook)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
        processes.append(process)
        runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
        return wait_for_server(process, runtime, tmp_path / "server.log")

    yield start
    for process in processes:
        process.terminate()  # Jupyter stops its kernels on SIGTERM
        process.wait(timeout=30)


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
    # Two threads that wait for each other's core take twenty times as long on a busy machine.
    return os.environ | {name: str(folder) for name, folder in folders.items()} | ONE_THREAD


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_server(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> LabServer:
    """The server writes its address and token into its runtime folder once it listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
        for found in runtime.glob("jpserver-*.json"):
            text = found.read_text()
            if text.strip().endswith("}"):  # written whole
                information = json.loads(text)
                return LabServer(information["url"], information["token"])
        time.sleep(0.1)
    raise AssertionError(f"the server did not answer within 60 s:\n{log.read_text()[-3000:]}")


@pytest.fixture
def open_notebook(chromium, start_lab):
    """open_notebook(path) -> Playwright page with the notebook shown and its kernel idle."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})

    def open_page(notebook: Path):
        page = context.new_page()
        page.goto(start_lab(notebook).address(notebook.name))
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        # Run All before a kernel is attached is dropped without a word (jupyterlab#8490).
        idle = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\| Idle"))
        idle.first.wait_for(timeout=60_000)
        return page

    yield open_page
    context.close()
