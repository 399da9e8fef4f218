"""`oss-lab record`: what a model does, as a folder that notebooks show without the model.

A fixed set of prompts, or your own, is asked at each effort with one seed. Kept are the replies,
their tokens by channel, and of each reply and its prompt the routes, their margins and the sinks.
After Ctrl-C or a crash the same command goes on.
"""

import argparse
import sys
from pathlib import Path

from oss_lab.cli._budget import add_budget, budget_bytes
from oss_lab.cli._json import naming, read_json
from oss_lab.errors import LabError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its arguments."""
    parser = commands.add_parser(
        "record", help="keep replies and traces of a model to show without it", description=__doc__
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="nano, 20b, 120b or a checkpoint folder"
    )
    parser.add_argument("--download", action="store_true", help="fetch 20b or 120b if need be")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where to keep it"
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="F.json", help="your own: a JSON list of strings"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every reply (default: 0)")
    parser.add_argument(
        "--max-tokens", type=int, default=2048, metavar="N", help="of a reply (default: 2048)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="what is computed in (default: float32 for nano, else bfloat16)",
    )
    parser.add_argument(
        "--kernels",
        choices=("auto", "reference", "triton", "cpu"),
        help="what replies are computed with (default: reference for nano, else auto)",
    )
    add_budget(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Record what is missing; 130 after Ctrl-C."""
    budget = budget_bytes(args.budget)
    if args.max_tokens < 1:
        raise LabError(f"--max-tokens is {args.max_tokens}; it must be 1 or more")
    if args.out.exists() and not args.out.is_dir():
        raise LabError(f"{args.out} is a file; --out takes the name of a folder")
    prompts = None if args.prompts is None else read_prompts(args.prompts)

    from oss_lab.checkpoint.fetch import REPOSITORIES
    from oss_lab.engine.generate import Sampling
    from oss_lab.evaluation.prompts import GENERAL
    from oss_lab.evaluation.record import record
    from oss_lab.hooks.cost import shown
    from oss_lab.lab import load
    from oss_lab.nano.prompts import nano_prompts

    Sampling(seed=args.seed)  # refuses one that is out of bounds before anything is loaded
    lab = load(
        args.checkpoint,
        dtype=args.dtype,
        kernels=args.kernels,
        download=args.download,
        verbose=sys.stderr.isatty(),
    )
    name = args.checkpoint if args.checkpoint in REPOSITORIES else None
    if prompts is None:
        prompts = nano_prompts() if lab.encoding.name == "nano" else GENERAL
    try:
        evidence = record(
            lab,
            args.out,
            prompts,
            seed=args.seed,
            max_tokens=args.max_tokens,
            budget=budget,
            name=name,
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on in {args.out}", file=sys.stderr)
        return 130
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{len(evidence.replies)} replies, {shown(size)} in {args.out}")
    return 0


def read_prompts(path: Path) -> list[str]:
    """A JSON list of strings in a file."""
    with naming(path):
        prompts = read_json(path)
        if not isinstance(prompts, list) or not prompts:
            raise LabError("this is no JSON list of strings with at least one in it")
        for number, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or not prompt.strip():
                raise LabError(f"entry {number} is not a string with something in it")
    return prompts
