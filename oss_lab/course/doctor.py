"""Is a machine ready for the course? One finding per question, each measured here and now."""

import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from oss_lab.checkpoint.memory import find_free_memory
from oss_lab.course.exercises import ANSWER
from oss_lab.course.instruments import QUESTION
from oss_lab.course.progress import find_folder
from oss_lab.errors import LabError
from oss_lab.lab import load

NOTEBOOK = 0.6  # GiB: an open notebook with nano and its traces has 0.44, figures not included
DISK = 1.0  # GiB that the exercises, a trained model and the book may need
PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget", "plotly", "torch")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    is_ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.is_ok else 'problem'}  {self.text}"


def examine_machine(seconds: float) -> Iterator[Finding]:
    """The findings, as they come; `seconds` is the longest that nano's answer may take."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_python,
        check_packages,
        check_memory,
        check_disk,
        check_folder,
        check_port,
        check_triton,
        lambda: check_answer(seconds),
        check_kernel,
    )
    for check in checks:
        try:
            yield check()
        except (LabError, OSError) as error:
            yield Finding(False, str(error))


def check_python() -> Finding:
    """Not a problem: an older Python than the package needs could not import this module."""
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    return Finding(True, f"Python {python} on {system}")


def check_packages() -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        text = f'{", ".join(missing)} not installed: run `pip install "oss-lab[lab]"`'
        return Finding(False, text)
    return Finding(True, ", ".join(found))


def check_memory() -> Finding:
    free = find_free_memory(torch.device("cpu"))
    if free is None:
        return Finding(True, "the free memory is not known on this system")
    notebooks = int(free / 2**30 / NOTEBOOK)
    text = f"{free / 2**30:.1f} GiB of memory are free: enough for {notebooks} open notebooks"
    advice = "" if notebooks else f"; a notebook needs {NOTEBOOK} GiB, so close other programs"
    return Finding(notebooks > 0, text + advice)


def check_disk() -> Finding:
    free = shutil.disk_usage(find_folder()).free / 2**30
    return Finding(free >= DISK, f"{free:.1f} GiB of disk are free; the course needs {DISK} GiB")


def check_folder() -> Finding:
    folder = find_folder().resolve()
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(True, f"progress can be saved in {folder}")
    except OSError as error:
        return Finding(False, f"nothing can be saved in {folder}: {error.strerror}")


def check_port() -> Finding:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
    return Finding(True, "JupyterLab can listen on this machine's own address")


def check_triton() -> Finding:
    """Not a problem: without Triton, 07_kernels runs its kernels with the course's own `tl`."""
    try:
        return Finding(True, f"triton {version('triton')}, for 07_kernels")
    except PackageNotFoundError:
        text = "triton is not installed: 07_kernels does not compare with its interpreter"
        return Finding(True, text)


def check_answer(seconds: float) -> Finding:
    lab = load("nano", verbose=False)
    began = time.perf_counter()
    answer = lab.chat(QUESTION, effort="high").final
    took = time.perf_counter() - began
    if answer != ANSWER:
        return Finding(False, f"nano answered {answer!r} to {QUESTION!r}, not {ANSWER}")
    text = f"nano answered {QUESTION!r} with {answer} in {took:.1f} s on {os.cpu_count()} cores"
    advice = f"; more than {seconds:g} s, so the notebooks will be slow" if took > seconds else ""
    return Finding(took <= seconds, text + advice)


def check_kernel() -> Finding:
    """Start a notebook's kernel, run one cell and stop it."""
    try:
        from jupyter_client.manager import start_new_kernel
    except ImportError:
        return Finding(False, 'no kernel can start: run `pip install "oss-lab[lab]"`')
    began = time.perf_counter()
    quiet = ["--log-level=ERROR"]  # a kernel warns of TCP, which Jupyter uses by default
    try:
        manager, client = start_new_kernel(
            startup_timeout=40, cwd=str(Path.cwd()), extra_arguments=quiet
        )
    except Exception as error:  # whatever a kernel on this machine dies of
        return Finding(False, f"a notebook's kernel did not start: {error}")
    try:
        reply = client.execute_interactive("import oss_lab", timeout=40, store_history=False)
        is_ok = reply["content"]["status"] == "ok"
    except TimeoutError:
        is_ok = False
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    took = time.perf_counter() - began
    text = f"a notebook's kernel started and imported oss_lab in {took:.1f} s"
    return Finding(is_ok, text if is_ok else "a notebook's kernel cannot import oss_lab")
