"""llama.cpp as a side of the benchmark: every sample is one run of its program llama-bench.

A run loads the model, warms up and repeats the work once. llama-bench measures only the work, so
its samples can take turns with those of the other sides. Left out: batches, which it cannot run.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from oss_lab.bench.sides import Timed
from oss_lab.errors import LabError

SHORT = 512  # tokens


class LlamaBench:
    """The program `program` on the GGUF file `model`."""

    name = "llama.cpp"

    def __init__(self, program: Path, model: Path, threads: int) -> None:
        self.program, self.model, self.threads = program, model, threads

    def prefill(self, prompt: Int[Tensor, "batch seq"]) -> Timed | None:
        # The warm-up is a run of the same length, which makes no difference to a long one.
        warm_up = () if prompt.shape[1] <= SHORT else ("--no-warmup",)
        return self._time(prompt, "-p", prompt.shape[1], "-n", 0, *warm_up)

    def decode(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed | None:
        return self._time(prompt, "-p", 0, "-n", count, "-d", prompt.shape[1])

    def generate(self, prompt: Int[Tensor, "batch seq"], count: int) -> Timed | None:
        return self._time(prompt, "-p", 0, "-n", 0, "-pg", f"{prompt.shape[1]},{count}")

    def command(self, *arguments: object) -> list[str]:
        """The command line of one run."""
        fixed = (self.program, "-m", self.model, "-t", self.threads, "-r", 1, "-o", "json")
        return [str(each) for each in (*fixed, *arguments)]

    def describe(self) -> dict[str, Any]:
        """Its build and its processor, by its own report."""
        (found,) = self.run("-p", 1, "-n", 0, "--no-warmup")
        return {name: found[name] for name in ("build_commit", "build_number", "cpu_info")}

    def run(self, *arguments: object) -> list[dict[str, Any]]:
        """The tests that one run reports.

        Raises:
            LabError: the program failed, or is not llama-bench.
        """
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise LabError(f"{self.program} ended with status {done.returncode}: {last}")
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise LabError(f"{self.program} printed no JSON; is it llama-bench?") from error

    def _time(self, prompt: Int[Tensor, "batch seq"], *arguments: object) -> Timed | None:
        if len(prompt) > 1:
            return None

        def run() -> float:
            (found,) = self.run(*arguments)
            return found["avg_ns"] / 1e9

        return run
