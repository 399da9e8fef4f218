"""`oss-lab convert`: write a checkpoint in the other published layout, or in other shards.

The source is checked first, as with `inspect`. The bytes of its weights do not change. Tokenizer
files are copied if they are in the same folder and both layouts are Hugging Face's.

On a CPU, or without the package accelerate, transformers opens the Hugging Face layout with
AutoModelForCausalLM.from_pretrained(DIR, quantization_config=Mxfp4Config(dequantize=True)).
"""

import os
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from oss_lab.checkpoint.layouts import TITLES, Layout
from oss_lab.config import MODELS
from oss_lab.errors import CheckpointError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
COMPANIONS = (
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of a Hugging Face folder, other than the weights and config.json."""


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
) -> int:
    """Convert a checkpoint to the other published layout."""
    from oss_lab.checkpoint.read import find_folder, open_checkpoint
    from oss_lab.checkpoint.write import write_checkpoint

    if model in MODELS and model != "nano":
        raise CheckpointError(
            f"expected a checkpoint folder, got the model name {model}"
            f" (./{model} if a folder has that name)"
        )
    out = Path(os.path.expanduser(out))
    source = find_folder(model)
    if out.exists() and source.exists() and out.samefile(source):
        raise CheckpointError(f"{out} is the source folder; choose another folder for --out")
    checkpoint = open_checkpoint(model)
    files = write_checkpoint(
        out,
        checkpoint.config,
        dict(checkpoint.tensors()),
        layout=to,
        max_shard_bytes=max_shard_size,
        overwrite=overwrite,
    )
    if to == checkpoint.layout == "huggingface":
        files += _copy_companions(checkpoint.folder, out)
    print(f"wrote {out} in the {TITLES[to]} layout: {', '.join(f.name for f in files)}")
    return 0


def _copy_companions(source: Path, out: Path) -> list[Path]:
    names = [name for name in COMPANIONS if (source / name).is_file()]
    return [Path(shutil.copyfile(source / name, out / name)) for name in names]
