"""`python -m oss_lab.bench`: measure our speed and memory on a CPU, with --peers beside others.

A benchmark, not a test. All sides get the same weights, tokens and threads, and take turns, so the
ratios are reliable even if absolute times vary. Ours is the reference model or, with --kernels cpu,
the kernels on packed experts. transformers runs with its defaults in the same dtype. llama.cpp runs
in its program llama-bench, on a GGUF file that is written for this run: packed experts, the rest in
bfloat16, its own arithmetic. Prints medians and ranges, and warns if other programs used too much
of the CPU: decoding synchronizes its threads often, so a busy machine slows it out of proportion.

The default run takes two minutes. Left out: compilation and GPUs.
"""

import json
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from pathlib import Path

from oss_kernels.bench import record
from oss_kernels.bench.options import parse_positive

from oss_lab.bench.command import (
    BUSY,
    choose_dtype_and_kernels,
    describe_run,
    open_requested,
    parse_arguments,
)
from oss_lab.bench.measure import Result
from oss_lab.bench.peers import Peers, find_peers
from oss_lab.bench.reading import measure_reading
from oss_lab.bench.report import build_table
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks import TASKS
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.cli._pipe import make_console, run_program
from oss_lab.errors import LabError

PROGRAM = "oss_lab.bench"


def main() -> int:
    arguments = parse_arguments(PROGRAM, __doc__, add_options)
    try:
        check_options(arguments)
        reading = measure_reading()
        with (
            open_requested(arguments) as checkpoint,
            tempfile.TemporaryDirectory(prefix="oss-lab-") as folder,
        ):
            peers = open_peers(checkpoint, arguments, Path(folder))
            rows = measure_rows(checkpoint, arguments, peers)
            llama = None if peers.llama is None else peers.llama.describe()
        if not rows:
            raise LabError(
                "nothing was measured: prefill reads 128 tokens or more, and stream needs a"
                " checkpoint with a vocabulary"
            )
    except LabError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    report = describe_run(arguments, [row.others for row in rows]) | {
        "reading": reading,
        "missing": peers.missing,
        "rows": [asdict(row) for row in rows],
    }
    report["versions"] |= {"transformers": record.find_version("transformers"), "llama.cpp": llama}
    if arguments.json:
        print(json.dumps(report))
    else:
        console = make_console()
        console.print(build_table(report))
        for sentence in peers.missing:
            console.print(f"Not compared with {sentence}")
        if not report["quiet"]:
            console.print(BUSY)
    if arguments.results:
        file = record.write(report, arguments.results, f"model-{report['checkpoint']}")
        print(file, file=sys.stderr)
    return 0


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tasks",
        type=parse_tasks,
        default=list(TASKS),
        metavar="NAME,...",
        help=f"what to measure: {', '.join(TASKS)} (default: all)",
    )
    parser.add_argument(
        "--longest",
        type=parse_positive,
        default=2048,
        metavar="TOKENS",
        help="skip longer prompts in the task prefill (default: 2048)",
    )
    parser.add_argument(
        "--peers", action="store_true", help="measure transformers and llama.cpp in the same run"
    )
    parser.add_argument("--llama-bench", metavar="PATH", help="llama.cpp's program llama-bench")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="save the JSON there")


def parse_tasks(text: str) -> list[str]:
    """Parse names of tasks, separated by commas."""
    names = text.split(",")
    for name in names:
        if name not in TASKS:
            raise ArgumentTypeError(f"{name!r} is not a task; use {', '.join(TASKS)}")
    return [name for name in TASKS if name in names]


def check_options(arguments: Namespace) -> None:
    """Make the folder for the results.

    Raises:
        LabError: there can be no such folder, or an option has no effect.
    """
    if arguments.llama_bench and not arguments.peers:
        raise LabError("--llama-bench has no effect without --peers")
    if arguments.results:
        try:
            arguments.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"--results {arguments.results}: {error.strerror}") from error


def open_peers(checkpoint: Checkpoint, arguments: Namespace, folder: Path) -> Peers:
    """The available peers, if they are requested."""
    if not arguments.peers:
        return Peers()
    return find_peers(checkpoint, arguments.llama_bench, folder, arguments.threads)


def measure_rows(checkpoint: Checkpoint, arguments: Namespace, peers: Peers) -> list[Result]:
    """Run the requested tasks. Prints the name of each on stderr when it begins."""
    _, kernels = choose_dtype_and_kernels(arguments)
    chosen = arguments.dtype, kernels, arguments.threads, arguments.repeats
    setting = Setting(checkpoint, *chosen, peers, arguments.longest)
    rows = list[Result]()
    for number, name in enumerate(arguments.tasks, start=1):
        print(f"{number} of {len(arguments.tasks)}: {name}", file=sys.stderr)
        rows += TASKS[name](setting)
    return rows


if __name__ == "__main__":
    sys.exit(run_program(main))
