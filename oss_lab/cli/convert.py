"""`oss-lab convert`: write a checkpoint in either published layout, packed or dense, in any shards.

The source is checked first, as with `inspect`. Without --experts, the experts keep their storage
and no byte of the weights changes. With --experts mxfp4, dense experts are rounded to the nearest
MXFP4 number; the scale of a block of 32 is the smallest power of two with which its largest weight
is at most 6 units, as in OpenAI's quantizer. With --experts bf16, packed experts are dequantized
without error. F16 and F32 tensors are rounded to BF16. The rounding errors are printed. The process
holds one tensor, or one expert, at a time.

The Hugging Face layout gets tokenizer files and a chat template: the checkpoint's own, or those of
oss_lab if there are none. On a CPU, or without the package accelerate,
transformers opens packed experts with
AutoModelForCausalLM.from_pretrained(DIR, quantization_config=Mxfp4Config(dequantize=True)).
"""

import os
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from oss_lab.checkpoint.layouts import TITLES, ExpertStorage, Layout
from oss_lab.config import MODELS
from oss_lab.errors import CheckpointError, VocabularyError

if TYPE_CHECKING:
    from oss_lab.checkpoint.read import Checkpoint

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Parse a number of bytes with an optional unit, decimal (GB) or binary (GiB)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = UNITS.get(match[2].upper()) if match else None
    size = 0 if match is None or unit is None else int(Decimal(match[1]) * unit)
    if size < 1:
        raise BadParameter(f"{text!r} is not a size such as 4.8GB or 500MiB")
    return size


def run(
    model: Annotated[str, Argument(metavar="MODEL", help="nano or a checkpoint folder")],
    to: Annotated[Layout, Option(help="the layout to write")],
    out: Annotated[Path, Option(help="the folder to write it in")],
    max_shard_size: Annotated[
        int | None,
        Option(parser=parse_size, metavar="SIZE", help="maximum file size, such as 4.8GB"),
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="replace an existing checkpoint")
    ] = False,
    experts: Annotated[
        ExpertStorage | None,
        Option(help="how to store the experts: packed, or dense (default: as in MODEL)"),
    ] = None,
) -> int:
    """Convert a checkpoint: its layout, its shards, the storage of its experts."""
    from oss_lab.checkpoint.read import find_folder, open_checkpoint
    from oss_lab.checkpoint.rewrite import rewrite_checkpoint

    if model in MODELS and model != "nano":
        raise CheckpointError(
            f"expected a checkpoint folder, got the model name {model}"
            f" (./{model} if a folder has that name)"
        )
    out = Path(os.path.expanduser(out))
    source = find_folder(model)
    if out.exists() and source.exists() and out.samefile(source):
        raise CheckpointError(f"{out} is the source folder; choose another folder for --out")
    checkpoint = open_checkpoint(model, any_float=True)
    written = rewrite_checkpoint(
        checkpoint,
        out,
        layout=to,
        experts=experts or checkpoint.experts,
        max_shard_bytes=max_shard_size,
        overwrite=overwrite,
    )
    print(f"wrote {out} in the {TITLES[to]} layout: {', '.join(f.name for f in written.files)}")
    if to == "huggingface":
        _add_companions(checkpoint, out)
    for kind, rounding in written.rounding.items():
        print(f"{kind}: {rounding.sentence}")
    return 0


def _add_companions(checkpoint: "Checkpoint", out: Path) -> None:
    from oss_lab.checkpoint.companions import write_companions

    sources = [checkpoint.folder]
    if checkpoint.folder.name == "original":
        sources.append(checkpoint.folder.absolute().parent)
    try:
        print(write_companions(out, sources, checkpoint.config))
    except VocabularyError as error:
        print(f"oss-lab: {out} has no tokenizer: {error}", file=sys.stderr)
