"""`oss-lab convert`: write a checkpoint in either published layout, packed or dense, in any shards.

The source is checked first, as with `inspect`. Without --experts, the experts keep their storage
and no byte of the weights changes. With --experts mxfp4, dense experts are rounded to the nearest
MXFP4 number; the scale of a block of 32 is the smallest power of two with which its largest weight
is at most 6 units, as when transformers quantizes gpt-oss. With --experts bf16, packed experts are
dequantized without error. F16 and F32 tensors are rounded to BF16. The rounding errors are printed.
The process holds one tensor, or one expert, at a time.

With --adapter, a LoRA adapter in PEFT's format is merged into the weights and the result rounded.
The Hugging Face layout gets tokenizer files and a chat template: the adapter's or the checkpoint's
own, or those of oss_lab if there are none. On a CPU, or without the package accelerate,
transformers opens packed experts with
AutoModelForCausalLM.from_pretrained(DIR, quantization_config=Mxfp4Config(dequantize=True)).

With --to gguf, --out is a file for llama.cpp, Ollama and LM Studio. The experts keep their storage.
"""

import os
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, BadParameter, Option

from oss_lab.checkpoint.layouts import TITLES, ExpertStorage
from oss_lab.cli._warnings import print_warning
from oss_lab.errors import CheckpointError, VocabularyError

if TYPE_CHECKING:
    from oss_lab.checkpoint.read import Checkpoint
    from oss_lab.checkpoint.rewrite import Written

Target = Literal["original", "huggingface", "gguf"]
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
    model: Annotated[str, Argument(metavar="MODEL", help="nano, 20b, 120b, a Hub id or a folder")],
    to: Annotated[Target, Option(help="the layout to write")],
    out: Annotated[Path, Option(help="the folder to write it in; for gguf, the file")],
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
    adapter: Annotated[
        Path | None, Option(metavar="DIR", help="merge the LoRA adapter in this folder")
    ] = None,
) -> int:
    """Convert a checkpoint: its layout, its shards, the storage of its experts, an adapter."""
    from oss_lab.checkpoint.read import find_folder, open_checkpoint

    out = Path(os.path.expanduser(out))
    if to == "gguf":
        for option, value in (
            ("--max-shard-size", max_shard_size), ("--experts", experts), ("--adapter", adapter)
        ):  # fmt: skip
            if value is not None:
                raise BadParameter(
                    f"{option} has no effect with --to gguf; use it with --to huggingface first"
                )
        return _write_gguf(model, out, overwrite)
    adapter = None if adapter is None else Path(os.path.expanduser(adapter))
    _refuse_source(out, find_folder(model), "source")
    if adapter is not None:
        _refuse_source(out, adapter, "adapter's")
    checkpoint = open_checkpoint(model, any_float=True)
    tokenizers = _find_tokenizers(checkpoint, adapter) if to == "huggingface" else []
    _look_into(out, tokenizers, overwrite)
    written, lines = _write(
        checkpoint,
        model,
        adapter,
        out,
        layout=to,
        experts=experts or checkpoint.experts,
        max_shard_bytes=max_shard_size,
        overwrite=overwrite,
    )
    print(f"wrote {out} in the {TITLES[to]} layout: {', '.join(f.name for f in written.files)}")
    if tokenizers:
        _add_companions(checkpoint, tokenizers, out)
    for line in lines:
        print(line)
    for kind, rounding in written.rounding.items():
        print(f"{kind}: {rounding.sentence}")
    return 0


def _write_gguf(model: str, file: Path, overwrite: bool) -> int:
    from oss_lab.checkpoint.gguf.limits import describe_frequencies
    from oss_lab.checkpoint.gguf.write import write_gguf
    from oss_lab.checkpoint.read import open_checkpoint

    checkpoint = open_checkpoint(model, any_float=True)
    write_gguf(checkpoint, file, overwrite=overwrite)
    print(f"wrote {file}")
    print(describe_frequencies(checkpoint.config))
    return 0


def _refuse_source(out: Path, folder: Path, what: str) -> None:
    """Raise CheckpointError if the output would replace what it is made from."""
    if out.exists() and folder.exists() and out.samefile(folder):
        raise CheckpointError(f"{out} is the {what} folder; choose another folder for --out")


def _write(
    checkpoint: "Checkpoint", model: str, adapter: Path | None, out: Path, **options: Any
) -> tuple["Written", list[str]]:
    """Write the checkpoint, with the adapter merged; also returns lines about the merge."""
    from oss_lab.checkpoint.adapter import read_adapter
    from oss_lab.checkpoint.fake import fake_metadata
    from oss_lab.checkpoint.merge import Changed, describe_merge, merge_adapter
    from oss_lab.checkpoint.rewrite import rewrite_checkpoint, write_values
    from oss_lab.checkpoint.values import read_values

    if adapter is None:
        return rewrite_checkpoint(checkpoint, out, **options), []
    read = read_adapter(adapter, checkpoint.config, model)
    for note in read.notes:
        print(f"oss-lab: {note}", file=sys.stderr)
    changed: dict[str, Changed] = {}
    values = merge_adapter(read_values(checkpoint), read, changed)
    mark = fake_metadata(checkpoint)
    written = write_values(out, checkpoint.config, values, metadata=mark, **options)
    return written, list(describe_merge(changed, written.rounding))


def _find_tokenizers(checkpoint: "Checkpoint", adapter: Path | None) -> list[Path]:
    """The folders that may contain the tokenizer, the first choice first."""
    sources = [checkpoint.folder] if adapter is None else [adapter, checkpoint.folder]
    if checkpoint.folder.name == "original":
        sources.append(checkpoint.folder.absolute().parent)
    return sources


def _look_into(out: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Warn of unfinished files in the output folder, and refuse to replace a tokenizer there."""
    from oss_lab.checkpoint.huggingface_tokenizer import FILES

    for left in sorted(out.glob(".partial-*")):
        print_warning(f"{left} is of a conversion that still runs or was killed; then delete it")
    is_source = out.exists() and any(each.exists() and out.samefile(each) for each in sources)
    there = [name for name in FILES if (out / name).exists()]
    if sources and there and not overwrite and not is_source:
        raise CheckpointError(
            f"{out} already contains {there[0]}; choose another folder, or replace it with"
            " --overwrite"
        )


def _add_companions(checkpoint: "Checkpoint", sources: Sequence[Path], out: Path) -> None:
    from oss_lab.checkpoint.companions import write_companions

    try:
        print(write_companions(out, sources, checkpoint.config))
    except VocabularyError as error:
        print_warning(f"{out} has no tokenizer: {error}")
