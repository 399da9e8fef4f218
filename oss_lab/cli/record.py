"""`oss-lab record`: what a model does, as a folder that notebooks show without the model.

A fixed set of prompts, or your own, is asked at each effort with one seed. Kept are the replies,
their tokens by channel, and of each reply and its prompt the routes, their margins and the sinks.
After Ctrl-C or a crash the same command resumes.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from oss_lab.checkpoint.plan import Dtype
from oss_lab.cli._json import naming, read_json
from oss_lab.cli._options import Budget, Checkpoint, Download, MaxTokens, Seed
from oss_lab.errors import LabError


def run(
    checkpoint: Checkpoint,
    out: Annotated[Path, Option(help="the folder to keep it in")],
    download: Download = False,
    prompts: Annotated[Path | None, Option(help="your own: a JSON list of strings")] = None,
    seed: Seed = 0,
    max_tokens: MaxTokens = 2048,
    dtype: Annotated[Dtype | None, Option(help="default: float32 for nano, else bfloat16")] = None,
    kernels: Annotated[
        Literal["auto", "reference", "triton", "cpu"] | None,
        Option(help="for replies (default: reference for nano, else auto)"),
    ] = None,
    budget: Budget = 2,
) -> int:
    """Keep replies and traces of a model to show without it."""
    if out.exists() and not out.is_dir():
        raise LabError(f"{out} is a file; --out takes the name of a folder")
    questions = None if prompts is None else read_prompts(prompts)

    from oss_lab.checkpoint.fetch import REPOSITORIES
    from oss_lab.evaluation.prompts import GENERAL
    from oss_lab.evaluation.record import record
    from oss_lab.hooks.cost import shown
    from oss_lab.lab import load
    from oss_lab.nano.prompts import nano_prompts

    lab = load(
        checkpoint,
        dtype=dtype,
        kernels=kernels,
        download=download,
        verbose=sys.stderr.isatty(),
    )
    name = checkpoint if checkpoint in REPOSITORIES else None
    if questions is None:
        questions = nano_prompts() if lab.tokenizer.name == "nano" else GENERAL
    try:
        evidence = record(
            lab,
            out,
            questions,
            seed=seed,
            max_tokens=max_tokens,
            budget=int(budget * 2**30),
            name=name,
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on in {out}", file=sys.stderr)
        return 130
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len(evidence.replies)} replies, {shown(size)} in {out}")
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
