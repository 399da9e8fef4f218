"""`oss-lab trace`: record what a model computes at hook points, in one safetensors file.

A prompt is rendered as a chat; a list of token ids is used unchanged. For either, `-` is standard
input. The tensors are named POINT/LAYER, or POINT outside the layers; their shape is [seq, ...].
The file also describes each token and how the values were computed. `--points list` prints the hook
points.
"""

import sys
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option

from oss_lab.cli._json import name_file
from oss_lab.cli._options import (
    AskedEffort,
    Budget,
    Checkpoint,
    Precision,
    announce_replacement,
    read_text,
)
from oss_lab.cli.logits import read_ids
from oss_lab.errors import LabError

PIPED = 200  # columns of a table in a file or a pipe


def run(
    folder: Checkpoint,
    points: Annotated[
        str, Option(metavar="NAME[,NAME...]", help="hook points to record, or `list`")
    ],
    prompt: Annotated[str | None, Option(help="the user's question")] = None,
    tokens: Annotated[Path | None, Option(help="a file with a JSON list of token ids")] = None,
    layers: Annotated[
        str | None, Option(metavar="N[,N...]", help="record only these layers")
    ] = None,
    effort: AskedEffort = None,
    dtype: Precision = "float32",
    budget: Budget = 2,
    out: Annotated[Path | None, Option(help="the safetensors file to write")] = None,
) -> int:
    """Record hook points of a model in a safetensors file."""
    if points == "list":
        if out is not None or prompt is not None or tokens is not None:
            raise LabError(
                "--points list only prints the hook points: leave out --out, --prompt and --tokens"
            )
        return print_points()
    if prompt is not None and tokens is not None:
        raise BadParameter("not allowed with --tokens", param_hint="--prompt")
    if prompt is None and tokens is None:
        raise LabError("nothing to trace: give --prompt TEXT or --tokens F.json")
    if out is None:
        raise LabError("--out is missing: name the file to write")
    if tokens is not None and effort is not None:
        raise LabError("--effort applies to --prompt only: leave it out with --tokens")
    prompt = None if prompt is None else read_text(prompt, "--prompt")
    ids = None if tokens is None else read_ids(tokens)  # before torch is imported
    chosen = None if layers is None else read_layers(layers)

    from oss_lab.analysis.tracing import trace_requests
    from oss_lab.checkpoint.atomic import check_output_file
    from oss_lab.checkpoint.digest import checkpoint_digest
    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.checkpoint.load import DTYPES, load_model
    from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT, check_vocabulary
    from oss_lab.engine.choice import Engines, choose_device, choose_kernels
    from oss_lab.engine.request import Request, check_tokens
    from oss_lab.harmony import Conversation, Message, SystemContent, render
    from oss_lab.hooks.cost import check_budget
    from oss_lab.hooks.points import find_forward_points
    from oss_lab.hooks.selection import Selection
    from oss_lab.lab.loading import default_kernels, vocabulary_name
    from oss_lab.tokenizer import load_vocabulary

    check_output_file(out)
    checkpoint = find_checkpoint(folder)
    selection = Selection.of(points.split(","), chosen)
    selection.check(checkpoint.config)
    encoding = None
    if ids is None:
        assert prompt is not None
        vocabulary = vocabulary_name(checkpoint)
        encoding = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
        check_vocabulary(checkpoint.folder, encoding)
        effort = effort or DEFAULT_EFFORT[vocabulary]
        system = Message.of("system", SystemContent(reasoning_effort=effort))
        ids = render(Conversation.of(system, Message.of("user", prompt)), encoding).tokens
    name = "the prompt" if tokens is None else f"{name_file(tokens)}: the list"
    check_tokens(ids, checkpoint.config, name=name)
    place = choose_device(None)
    backend, is_auto = choose_kernels(None, place, default_kernels(checkpoint.config))
    model = load_model(checkpoint, dtype=DTYPES[dtype], device=place)
    check_budget(model, selection, [len(ids)], int(budget * 2**30))
    engine = Engines(model, backend, is_auto=is_auto).choose(find_forward_points(selection.points))
    if engine.reason is not None:
        print(f"computed by the reference engine: {engine.reason}", file=sys.stderr)
    request = Request(tuple(ids), selection=selection)
    (trace,) = trace_requests(engine, encoding, [request], checkpoint_digest(checkpoint))
    with announce_replacement(out):
        trace.save(out)
    print(f"wrote {out}")
    return 0


def read_layers(text: str) -> tuple[int, ...]:
    """Parse layer numbers separated by commas."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise LabError(f"--layers is {text!r}; expected numbers separated by commas") from None


def print_points() -> int:
    """Print the table of hook points."""
    from rich.table import Table

    from oss_lab.cli._pipe import make_console
    from oss_lab.hooks.points import POINTS

    table = Table("point", "axes", "tier", "meaning", box=None, pad_edge=False)
    for point in POINTS.values():
        table.add_row(point.name, " ".join(point.axes), str(point.tier), point.meaning)
    width = None if sys.stdout.isatty() else PIPED
    make_console(file=sys.stdout, width=width).print(table)
    return 0
