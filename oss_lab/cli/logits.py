"""`oss-lab logits`: what a checkpoint computes for lists of ids, for other programs to compare.

Nothing is tokenised and no vocabulary is needed. Everything that was given is checked before
anything is computed; OUT appears complete or not at all. It runs on OSS_LAB_DEVICE, or else on a
CUDA GPU if there is one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_lab.checkpoint.atomic import check_out, write_tensors
from oss_lab.cli._json import naming, read_json
from oss_lab.errors import LabError

if TYPE_CHECKING:
    from oss_lab.config import ModelConfig


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "logits", help="write the logits of token lists as safetensors", description=__doc__
    )
    parser.add_argument("folder", metavar="DIR", help="a checkpoint folder, or nano, 20b, 120b")
    parser.add_argument(
        "--tokens",
        nargs="+",
        type=Path,
        required=True,
        metavar="F.json",
        help="each a JSON list of ids; several may follow one flag",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what is computed in (default: float32); the logits written are float32",
    )
    parser.add_argument(
        "--last", type=int, metavar="N", help="the last N positions only (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="OUT.safetensors", help="the file to write"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.last is not None and args.last < 1:
        raise LabError(f"--last is {args.last}; it must be 1 or more")
    names = tensor_names(args.tokens)
    check_out(args.out)
    values = [read_ids(path) for path in args.tokens]  # before torch is imported

    from tqdm.auto import tqdm

    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.engine.generate import sequence_logits
    from oss_lab.engine.loading import DTYPES, chosen_device, load_model

    checkpoint = find_checkpoint(args.folder)
    for path, ids in zip(args.tokens, values, strict=True):
        check_ids(path, ids, checkpoint.config)
    model = load_model(checkpoint, dtype=DTYPES[args.dtype], device=chosen_device(None))
    jobs = tqdm(list(zip(names, values, strict=True)), unit="file", delay=2, disable=None)
    logits = {name: sequence_logits(model, ids, args.last).cpu() for name, ids in jobs}
    write_tensors(args.out, logits)
    return 0


def tensor_names(paths: Sequence[Path]) -> list[str]:
    """`logits` for one file, `logits.<stem>` for each of several."""
    if len(paths) == 1:
        return ["logits"]
    names: dict[str, Path] = {}
    for path in paths:
        name = f"logits.{path.stem}"
        if name in names:
            raise LabError(f"{names[name]} and {path} would both be {name}; rename one of them")
        names[name] = path
    return list(names)


def read_ids(path: Path) -> list[int]:
    """The JSON list of ids in a file; every error names the file."""
    with naming(path):
        value: Any = read_json(path)
        if not isinstance(value, list):
            raise LabError(f"expected a JSON list of token ids, not {type(value).__name__}")
        for place, item in enumerate(value):
            if type(item) is not int:  # a bool is an int to Python
                kind = type(item).__name__
                raise LabError(f"expected a list of integers, but item {place} is a {kind}")
    return value


def check_ids(path: Path, ids: list[int], config: "ModelConfig") -> None:
    from oss_lab.engine.generate import check_tokens

    check_tokens(ids, config, name=f"{path}: the list")
