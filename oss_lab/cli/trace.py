"""`oss-lab trace`: what a checkpoint computes at chosen points, written as one safetensors file.

A prompt is put into a Harmony conversation with nano's or gpt-oss' vocabulary; a list of ids needs
none. Tensors are named POINT/LAYER, or POINT outside the layers, and shaped [seq, ...]; the file
also says what each token is and where everything comes from. `--points list` prints the points.
"""

import argparse
import sys
from pathlib import Path

from oss_lab.cli._budget import add_budget, budget_bytes
from oss_lab.cli.logits import read_ids
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS

PIPED = 200  # columns of a table that goes into a file or a pipe, where nothing wraps


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "trace", help="write what a model computes inside as safetensors", description=__doc__
    )
    parser.add_argument("folder", metavar="CHECKPOINT", help="a folder, or nano, 20b, 120b")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what a user asks")
    prompt.add_argument("--tokens", type=Path, metavar="F.json", help="a JSON list of ids")
    parser.add_argument(
        "--points", required=True, metavar="NAME[,NAME...]", help="what to keep, or `list`"
    )
    parser.add_argument("--layers", metavar="N[,N...]", help="these layers only")
    parser.add_argument(
        "--effort", choices=EFFORTS, help="of a prompt (default: medium; nano's is high)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what is computed in (default: float32)",
    )
    add_budget(parser)
    parser.add_argument("--out", type=Path, metavar="OUT.safetensors", help="the file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.points == "list":
        return print_points()
    if args.prompt is None and args.tokens is None:
        raise LabError("there is nothing to trace: give --prompt TEXT or --tokens F.json")
    if args.out is None:
        raise LabError("--out is missing: name the file to write")
    if args.tokens is not None and args.effort is not None:
        raise LabError("--effort belongs to a --prompt: leave it out with --tokens")
    budget = budget_bytes(args.budget)
    ids = None if args.tokens is None else read_ids(args.tokens)  # before torch is imported
    layers = None if args.layers is None else read_layers(args.layers)

    from oss_lab.checkpoint.atomic import check_out
    from oss_lab.checkpoint.digest import checkpoint_digest
    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.engine.generate import check_tokens
    from oss_lab.engine.loading import DTYPES, chosen_device, chosen_kernels, load_model
    from oss_lab.harmony import Conversation, Message, SystemContent, render
    from oss_lab.hooks.cost import check_budget
    from oss_lab.hooks.selection import Selection
    from oss_lab.hooks.tracing import traced
    from oss_lab.lab import EFFORT, vocabulary_name
    from oss_lab.tokenizer import load_vocabulary

    check_out(args.out)
    checkpoint = find_checkpoint(args.folder)
    selection = Selection(tuple(args.points.split(",")), layers)
    selection.check(checkpoint.config)
    encoding = None
    if ids is None:
        assert args.prompt is not None
        vocabulary = vocabulary_name(checkpoint)
        encoding = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
        effort = args.effort or EFFORT[vocabulary]
        system = Message.of("system", SystemContent(reasoning_effort=effort))
        ids = render(Conversation.of(system, Message.of("user", args.prompt)), encoding).tokens
    name = "the prompt" if args.tokens is None else f"{args.tokens}: the list"
    check_tokens(ids, checkpoint.config, name=name)
    place = chosen_device(None)
    model = load_model(
        checkpoint, dtype=DTYPES[args.dtype], device=place, kernels=chosen_kernels(None, place)
    )
    check_budget(model, selection, len(ids), budget)
    trace = traced(model, encoding, ids, selection, checkpoint_digest(checkpoint))
    trace.save(args.out)
    return 0


def read_layers(text: str) -> tuple[int, ...]:
    """Layer numbers separated by commas."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise LabError(f"--layers is {text!r}; write numbers separated by commas") from None


def print_points() -> int:
    """The table of points on stdout."""
    from rich.console import Console
    from rich.table import Table

    from oss_lab.hooks.points import POINTS

    table = Table("point", "axes", "tier", "meaning", box=None, pad_edge=False)
    for point in POINTS.values():
        table.add_row(point.name, " ".join(point.axes), str(point.tier), point.meaning)
    width = None if sys.stdout.isatty() else PIPED
    Console(file=sys.stdout, width=width).print(table)
    return 0
