"""Write a checkpoint in either published layout, in one file or in numbered shards.

The bytes of the tensors never change, so original -> Hugging Face -> original gives the same files.
Everything is first written to a temporary subfolder: an existing checkpoint stays intact until the
new one is complete. Left out: tokenizer files.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_lab.checkpoint.dialects import huggingface_fields, original_fields
from oss_lab.checkpoint.examine import CONFIG
from oss_lab.checkpoint.layouts import Layout, StoredTensor, TensorSpec, tensor_table
from oss_lab.checkpoint.read import check_path
from oss_lab.config import ModelConfig, find_contradictions
from oss_lab.errors import CheckpointError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
DTYPES = "dtypes.json"
# Published: model--00001-of-00007 in the original layout, model-00001-of-00003 elsewhere.
SHARD_STEM: dict[Layout, str] = {"original": "model--", "huggingface": "model-"}


def write_checkpoint(
    folder: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, "torch.Tensor"],
    *,
    layout: Layout = "original",
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write config.json, the weights and the other files of `layout`; return the files.

    Args:
        tensors: all tensors of the model under their original names, BF16 or U8 as stored.
        max_shard_bytes: maximum bytes of tensors per file, None for one file. A larger tensor gets
            a separate file.
        overwrite: replace a checkpoint in `folder`; other files there are kept.

    Raises:
        CheckpointError: a tensor is missing, unknown, or has the wrong shape or dtype; a checkpoint
            would be overwritten; or there is too little space. In these cases nothing is written.
    """
    folder = Path(os.path.expanduser(folder))
    check_path(folder)
    for field, what in find_contradictions(config):
        raise CheckpointError(f"the configuration cannot be written: {field} {what}")
    specs = list(tensor_table(config))
    _check_tensors(specs, tensors)
    old = _checkpoint_files(folder)
    if old and not overwrite:
        raise CheckpointError(
            f"{folder} already contains {old[0].name}; choose another folder, or overwrite it with"
            " overwrite=True (command line: --overwrite)"
        )
    for file in old:
        if file.is_dir() and not file.is_symlink():
            raise CheckpointError(
                f"{file} is a folder and cannot be replaced; choose another output folder"
            )
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _check_space(folder, specs)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            _write(Path(partial), config, specs, tensors, layout, max_shard_bytes)
            for file in old:
                file.unlink()
            written = sorted(Path(partial).iterdir())
            return [file.replace(folder / file.name) for file in written]
    except BaseException:
        if created:
            shutil.rmtree(folder)
        raise


def _check_tensors(specs: list[TensorSpec], tensors: Mapping[str, "torch.Tensor"]) -> None:
    import torch

    dtypes = {"BF16": torch.bfloat16, "U8": torch.uint8}
    if unknown := sorted(tensors.keys() - {spec.name for spec in specs}):
        raise CheckpointError(f"tensor {unknown[0]} does not belong to this configuration")
    for spec in specs:
        if spec.name not in tensors:
            raise CheckpointError(f"tensor {spec.name} is missing")
        tensor = tensors[spec.name]
        if tensor.dtype != dtypes[spec.dtype]:
            raise CheckpointError(f"tensor {spec.name} is {tensor.dtype}, not {dtypes[spec.dtype]}")
        if tuple(tensor.shape) != spec.shape:
            shape, wanted = list(tensor.shape), list(spec.shape)
            raise CheckpointError(f"tensor {spec.name} has shape {shape}, not {wanted}")


def _checkpoint_files(folder: Path) -> list[Path]:
    """The files that a reader of `folder` would treat as parts of its checkpoint."""
    named = [folder / name for name in (CONFIG, DTYPES)]
    weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.safetensors.index.json"))
    return [file for file in (*named, *weights) if file.exists() or file.is_symlink()]


def _check_space(folder: Path, specs: list[TensorSpec]) -> None:
    needed, free = sum(spec.nbytes for spec in specs), shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free"
        raise CheckpointError(f"not enough disk space for {folder}: {sizes}")


def _write(
    folder: Path,
    config: ModelConfig,
    specs: list[TensorSpec],
    tensors: Mapping[str, "torch.Tensor"],
    layout: Layout,
    max_shard_bytes: int | None,
) -> None:
    from safetensors.torch import save_file

    shards = list(_split_shards(specs, layout, max_shard_bytes))
    places = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{SHARD_STEM[layout]}{number:05}-of-{len(shards):05}.safetensors"
        name = "model.safetensors" if len(shards) == 1 else name
        contents = dict(_cut_pieces(shard, tensors))
        save_file(contents, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(contents, name)
    fields = original_fields(config) if layout == "original" else huggingface_fields(config)
    _write_json(folder / CONFIG, fields)
    for file in folder.glob("*.safetensors"):
        shutil.copymode(folder / CONFIG, file)  # safetensors lets only the owner read them
    if layout == "original":
        _write_json(folder / DTYPES, {spec.name: _dtype_name(spec) for spec in specs})
    elif len(shards) > 1:
        total = sum(spec.nbytes for spec in specs)
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


Piece = tuple[TensorSpec, int, StoredTensor]
"""An original tensor, a row in it, and the stored tensor that starts at this row."""


def _split_shards(
    specs: list[TensorSpec], layout: Layout, most: int | None
) -> Iterator[list[Piece]]:
    """Split the table, in order, into runs of at most `most` bytes."""
    shard: list[Piece] = []
    size = 0
    for spec in specs:
        row = 0
        for stored in spec.stored(layout):
            if shard and most is not None and size + stored.nbytes > most:
                yield shard
                shard, size = [], 0
            shard.append((spec, row, stored))
            size += stored.nbytes
            row += stored.shape[0]
    yield shard


def _cut_pieces(
    shard: list[Piece], tensors: Mapping[str, "torch.Tensor"]
) -> Iterator[tuple[str, "torch.Tensor"]]:
    for spec, row, stored in shard:
        rows = tensors[spec.name][row : row + stored.shape[0]]
        yield stored.name, rows.detach().cpu().contiguous()


def _dtype_name(spec: TensorSpec) -> str:
    return {"expert blocks": "FP4", "expert scales": "UE8"}.get(spec.role, "BF16")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
