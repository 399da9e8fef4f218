"""A separate process that loads the model, reads a prompt and decodes a few tokens.

Only a fresh process shows how long loading takes and how much memory the model needs. The peak is
that of the operating system: weights that are mapped from a file count while they are in memory.
The file is in the system's cache, because an earlier process read it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
from oss_kernels.backends import KernelName, load_backend
from oss_kernels.bench.quiet import Busy

from oss_lab.bench import peak
from oss_lab.bench.command import make_random_ids
from oss_lab.bench.measure import OURS
from oss_lab.bench.setting import Setting
from oss_lab.bench.sides import Ours, Side, Theirs
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.plan import Dtype
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.engine.choice import Engines
from oss_lab.errors import LabError
from oss_lab.progress import track_progress
from oss_lab.proof.transformers_model import load_folder, require_transformers, write_copy

PROMPT, NEW = 512, 16
MOST = 2  # processes per side


@dataclass(frozen=True)
class ChildRun:
    """What one process needed.

    Attributes:
        seconds: to load the model and compute one token.
        peak: bytes of memory at its highest, pages of mapped files included.
        interpreter: bytes before it loaded the model; 0 for a program without an interpreter.
        others: the share of a core that other programs used.
    """

    seconds: float
    peak: int
    interpreter: int
    others: float


@cache
def run_children(setting: Setting) -> dict[str, list[ChildRun]]:
    """At most `MOST` processes for each side, in turn, after one of ours that is not counted."""
    commands = {OURS: build_command(setting, OURS)}
    if setting.peers.has_transformers:
        commands["transformers"] = build_command(setting, "transformers")
    if setting.peers.llama is not None:
        llama = setting.peers.llama
        commands[llama.name] = llama.command("-p", PROMPT, "-n", NEW, "--no-warmup")
    runs: dict[str, list[ChildRun]] = {name: [] for name in commands}
    run_child(commands[OURS])  # reads the file into the system's cache
    for _ in track_progress(range(min(MOST, setting.repeats)), "load and memory", "round"):
        for name, command in commands.items():
            found = run_child(command)
            if name == "llama.cpp":  # the same work again, without what only memory needs
                assert setting.peers.llama is not None
                one = run_child(setting.peers.llama.command("-p", 1, "-n", 0, "--no-warmup"))
                found = ChildRun(one.seconds, found.peak, 0, one.others)
            runs[name].append(found)
    return runs


def build_command(setting: Setting, side: str) -> list[str]:
    """The command line of a process of this module."""
    folder, kernels = str(setting.checkpoint.folder), setting.kernels.name
    words = [side, folder, setting.dtype, kernels, str(setting.threads)]
    return [sys.executable, "-m", "oss_lab.bench.child", *words]


def run_child(command: list[str]) -> ChildRun:
    """Run a process to its end. One that reports no seconds is measured as a whole.

    Raises:
        LabError: the process failed, perhaps because memory ran out.
    """
    before, began = Busy.now(), time.perf_counter()
    wrapper = [sys.executable, str(Path(peak.__file__)), *command]
    run = json.loads(subprocess.run(wrapper, capture_output=True, check=True).stdout)
    others = Busy.now().others_since(before, time.perf_counter() - began)
    if run["status"] or not run["out"]:
        words, lines = " ".join(command[:4]), run["error"].strip().splitlines()
        reason = f": {lines[-1]}" if lines else ""
        raise LabError(f"the process `{words} ...` ended with status {run['status']}{reason}")
    found = json.loads(run["out"])
    if isinstance(found, list):  # llama-bench
        return ChildRun(run["seconds"], run["peak"], 0, others)
    return ChildRun(found["seconds"], run["peak"], found["interpreter"], others)


def find_resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(side: str, folder: str, dtype: Dtype, kernels: KernelName, threads: int) -> None:
    """Do the work, and print its numbers as JSON."""
    torch.set_num_threads(threads)
    backend, checkpoint = load_backend(kernels), open_checkpoint(folder)
    prompt = make_random_ids(checkpoint, PROMPT)
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as copy:
        if side == OURS:
            interpreter, began = find_resident(), time.perf_counter()
            model = load_model(checkpoint, dtype=DTYPES[dtype])
            made: Side = Ours(Engines(model, backend))
        else:
            require_transformers()
            write_copy(checkpoint, copy)
            interpreter, began = find_resident(), time.perf_counter()
            made = Theirs(load_folder(copy, DTYPES[dtype]))
    (made.prefill(prompt[:, :1]))()
    seconds = time.perf_counter() - began
    (made.decode(prompt, NEW))()
    print(json.dumps({"seconds": seconds, "interpreter": interpreter}))


if __name__ == "__main__":
    _, side, folder, dtype, kernels, threads = sys.argv
    main(side, folder, cast(Dtype, dtype), cast(KernelName, kernels), int(threads))
