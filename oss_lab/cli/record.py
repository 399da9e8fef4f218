"""`oss-lab record`: save replies and traces of a model, to study them later without the model.

Asks a fixed set of prompts, or your own, at each effort with one seed. The folder gets the replies,
their tokens by channel, and a trace of each reply with its prompt: the chosen experts, the router's
margins and the attention sinks. After Ctrl-C or a crash the same command resumes.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from oss_lab.checkpoint.atomic import check_output_folder
from oss_lab.checkpoint.plan import Dtype
from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.cli._options import Budget, Checkpoint, Download, MaxTokens, Seed, has_error_terminal
from oss_lab.errors import LabError


def run(
    checkpoint: Checkpoint,
    out: Annotated[Path, Option(help="the folder to write")],
    download: Download = False,
    prompts: Annotated[Path | None, Option(help="your own prompts: a JSON list of strings")] = None,
    seed: Seed = 0,
    max_tokens: MaxTokens = 2048,
    dtype: Annotated[Dtype | None, Option(help="default: float32 for nano, else bfloat16")] = None,
    kernels: Annotated[
        Literal["auto", "reference", "triton", "cpu"] | None,
        Option(help="engine of the replies (default: reference for nano, else auto)"),
    ] = None,
    budget: Budget = 2,
) -> int:
    """Save replies and traces of a model, to study them without it."""
    check_output_folder(out)
    questions = None if prompts is None else read_prompts(prompts)

    from oss_lab.checkpoint.names import REPOSITORIES
    from oss_lab.evaluation.prompts import GENERAL
    from oss_lab.evaluation.record import record
    from oss_lab.hooks.cost import format_bytes
    from oss_lab.lab import load
    from oss_lab.nano.prompts import draw_nano_prompts

    lab = load(
        checkpoint,
        dtype=dtype,
        kernels=kernels,
        download=download,
        verbose=has_error_terminal(),
    )
    name = checkpoint if checkpoint in REPOSITORIES else None
    if questions is None:
        questions = draw_nano_prompts() if lab.tokenizer.name == "nano" else GENERAL
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
        print(f"stopped; the same command resumes in {out}", file=sys.stderr)
        return 130
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len(evidence.replies)} replies, {format_bytes(size)} in {out}")
    return 0


def read_prompts(path: Path) -> list[str]:
    """Read a JSON list of strings from a file."""
    with prefix_errors(path):
        prompts = read_json(path)
        if not isinstance(prompts, list) or not prompts:
            raise LabError("expected a JSON list with at least one string")
        for number, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or not prompt.strip():
                raise LabError(f"entry {number} is not a string, or is empty")
    return prompts
