"""`oss-lab finetune`: train a LoRA adapter for a checkpoint on your own conversations.

Each line of DATA is {"messages": [...]}, in the form of OpenAI's chat messages, optionally with
"tools" and "effort". Reasoning is `reasoning_content` or `thinking`. Only what the assistant writes
is learned. The whole file is checked first. Then the memory and the work are printed; --plan stops
there and needs neither the data nor the weights.

The folder --out has everything of a run: recipe, log, state, curves, and at the end LoRA files in
PEFT's format. After Ctrl-C the same command with --resume continues from the last saved state, and
ends with the same numbers. nano trains for some minutes on a CPU. The reference model's attention,
nano's default, needs memory that grows with the square of --length; that of --kernels does not.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from oss_lab.cli._options import Checkpoint, Download, Threads
from oss_lab.cli._warnings import print_warning, report_warnings
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort

if TYPE_CHECKING:
    import torch

    from oss_lab.finetune.log import FinetuneStep
    from oss_lab.finetune.run import Run

REDRAW = 15  # seconds between two pages of curves


def run(
    name: Checkpoint,
    data: Annotated[
        Path | None, Argument(metavar="DATA", help="a file with one conversation per line")
    ] = None,
    out: Annotated[Path | None, Option(help="folder of the run")] = None,
    rank: Annotated[int | None, Option(min=1, help="inner numbers per matrix (default: 8)")] = None,
    alpha: Annotated[float | None, Option(help="scale of the change (default: 16)")] = None,
    targets: Annotated[
        list[str] | None,
        Option(help="attention, experts, router, all, or names such as q_proj (default: the two)"),
    ] = None,
    epochs: Annotated[int | None, Option(min=1, help="how often to read the data")] = None,
    steps: Annotated[int | None, Option(min=1, help="updates, instead of --epochs")] = None,
    batch: Annotated[
        int | None, Option(min=1, help="rows per update (default: 32 for nano, else 8)")
    ] = None,
    rows: Annotated[
        int | None, Option(min=1, help="rows at a time (default: 4 for nano, else 1)")
    ] = None,
    length: Annotated[
        int | None, Option(min=1, help="tokens per row (default: 256 for nano, else 1024)")
    ] = None,
    learning_rate: Annotated[
        float | None, Option(help="peak learning rate (default: 1e-3 for nano, else 2e-4)")
    ] = None,
    seed: Annotated[int | None, Option(min=0, max=2**63 - 1, help="seed (default: 0)")] = None,
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None, Option(help="precision of the frozen model")
    ] = None,
    channels: Annotated[
        list[str] | None,
        Option(help="the assistant's channels to learn: analysis, commentary, final"),
    ] = None,
    effort: Annotated[Effort | None, Option(help="effort of conversations that name none")] = None,
    recompute: Annotated[
        bool | None, Option(help="keep activations of a single layer (default: not for nano)")
    ] = None,
    kernels: Annotated[
        Literal["auto", "reference", "cpu", "triton"] | None,
        Option(help="for attention and packed experts (default: reference for nano, else auto)"),
    ] = None,
    threads: Threads = None,
    device: Annotated[str | None, Option(help="default: OSS_LAB_DEVICE, else cuda or cpu")] = None,
    download: Download = False,
    resume: Annotated[bool, Option("--resume", help="continue the run in --out")] = False,
    plan: Annotated[bool, Option("--plan", help="print memory and work, and stop")] = False,
) -> int:
    """Train a LoRA adapter on your own conversations."""
    if steps is not None and epochs is not None:
        raise LabError("--steps and --epochs both set the end of the run; give one of them")
    settings: dict[str, Any] = {
        "rank": rank, "alpha": alpha, "targets": targets, "epochs": epochs, "steps": steps,
        "batch": batch, "rows": rows, "length": length, "learning_rate": learning_rate,
        "seed": seed, "dtype": dtype, "channels": channels, "effort": effort,
        "recompute": recompute, "kernels": kernels,
    }  # fmt: skip
    settings = {name: value for name, value in settings.items() if value is not None}
    if plan:
        return print_plan_alone(name, settings, device)
    if data is None or out is None:
        what = "DATA, a file of conversations" if data is None else "--out, a folder for the run"
        raise LabError(f"expected {what}; without them, --plan prints the memory alone")
    from oss_lab.finetune.run import Run

    with report_warnings(print_warning):
        ready = Run(
            name, data, out, settings,
            resume=resume, device=device, threads=threads, download=download,
        )  # fmt: skip
    storage = ready.checkpoint.experts
    print_plan(ready.checkpoint.config, ready.recipe, storage, ready.device)
    tokens = sum(len(each.tokens) for each in ready.examples)
    todo = f"{ready.done} of {ready.total} steps are done"
    print(f"{len(ready.examples):,} examples of {tokens:,} tokens; {todo}")
    print(f"training on {ready.device} with {ready.recipe.kernels} kernels")
    sys.stdout.flush()
    return train(ready)


def print_plan_alone(name: str, settings: dict[str, Any], device: str | None) -> int:
    """The plan of a model that need not be on this machine."""
    from oss_lab.checkpoint.names import find_config_name
    from oss_lab.checkpoint.read import open_checkpoint
    from oss_lab.config import MODELS
    from oss_lab.engine.choice import choose_device
    from oss_lab.finetune.recipe import make_recipe

    if known := find_config_name(name):
        config, storage = MODELS[known], "mxfp4"
    else:
        checkpoint = open_checkpoint(name)
        config, storage = checkpoint.config, checkpoint.experts
    where = choose_device(device)
    print_plan(config, make_recipe(config, where, **settings), storage, where)
    return 0


def print_plan(config: Any, recipe: Any, storage: Any, device: "torch.device") -> None:
    from oss_lab.checkpoint.memory import find_free_memory
    from oss_lab.finetune.plan import describe_plan, plan_finetuning

    plan = plan_finetuning(config, recipe, storage)
    for line in describe_plan(plan, config, recipe, device, find_free_memory(device)):
        print(line)


def train(ready: "Run") -> int:
    """Train with a progress bar, then print what was learned and how to use it."""
    from oss_lab.finetune.curves import write_curves
    from oss_lab.finetune.log import LOG, read_log
    from oss_lab.progress import report_in_lines, track_progress

    at: list[FinetuneStep] = []
    drawn = -float("inf")
    print(f"a browser that opens {ready.folder / 'curves.html'} shows the curves as they grow")
    sys.stdout.flush()

    def describe() -> str:
        found = f", loss {at[-1].loss:.3f}" if at else ""
        return f"fine-tuning: step {at[-1].step + 1 if at else ready.done} of {ready.total}{found}"

    try:
        with (
            report_in_lines(describe),
            track_progress(ready.train(), "fine-tuning", total=ready.total, done=ready.done) as bar,
        ):
            for step in bar:
                at[:] = [step]
                bar.set_postfix(loss=f"{step.loss:.3f}")
                if time.monotonic() - drawn > REDRAW:
                    write_curves(ready.folder, REDRAW)
                    drawn = time.monotonic()
    except KeyboardInterrupt:
        if at:
            write_curves(ready.folder)  # a browser need not read it again
        print(
            f"stopped in {ready.folder}; the same command with --resume continues", file=sys.stderr
        )
        return 130
    steps = read_log(ready.folder / LOG)
    print(describe_result(steps))
    print(f"wrote {write_curves(ready.folder)}")
    print(f"wrote {ready.folder / 'adapter_model.safetensors'}; to try it, merge it and chat:")
    merged = ready.folder.with_name(f"{ready.folder.name}-merged")
    to = f"--to huggingface --experts bf16 --adapter {ready.folder} --out {merged}"
    print(f"  oss-lab convert {ready.name} {to}")
    print(f"  oss-lab chat {merged}")
    return 0


def describe_result(steps: "list[FinetuneStep]") -> str:
    """How long a run took, and the loss at its beginning and end."""
    some = max(1, len(steps) // 10)
    first, last = (sum(each.loss for each in part) / some for part in (steps[:some], steps[-some:]))
    minutes = sum(each.seconds for each in steps) / 60
    which = "the first and last step" if some == 1 else f"the first and last {some} steps"
    return (
        f"{len(steps):,} steps in {minutes:,.1f} minutes; loss {first:.3f} -> {last:.3f} nats per"
        f" learned token, means of {which}"
    )
