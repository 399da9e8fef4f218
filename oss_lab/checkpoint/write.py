"""Write a checkpoint in either published layout, in one file or in numbered shards.

The bytes of the tensors never change, so original -> Hugging Face -> original gives the same files.
Tensors are written as they come, in any order and in parts, so the whole model need not be in
memory. Everything is first written to a temporary subfolder: an existing checkpoint stays intact
until the new one is complete. Left out: tokenizer files.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_lab.checkpoint.dialects import huggingface_fields, original_fields
from oss_lab.checkpoint.examine import CONFIG
from oss_lab.checkpoint.layouts import ExpertStorage, Layout, StoredTensor, TensorSpec, tensor_table
from oss_lab.checkpoint.read import check_path
from oss_lab.checkpoint.tensor_files import TensorFiles
from oss_lab.config import ModelConfig, find_contradictions
from oss_lab.errors import CheckpointError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
DTYPES = "dtypes.json"
# Published: model--00001-of-00007 in the original layout, model-00001-of-00003 elsewhere.
SHARD_STEM: dict[Layout, str] = {"original": "model--", "huggingface": "model-"}


@dataclass(frozen=True)
class Part:
    """Rows of an original tensor, from row `first`; its dtype is that of the table."""

    name: str
    first: int
    rows: "torch.Tensor"


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
        tensors: all tensors of the model under their original names, BF16 or U8 as stored. Dense
            experts are `block.n.mlp.mlp1_weight` and `mlp2_weight` [expert rows columns].
        max_shard_bytes: maximum bytes of tensors per file, None for one file. A larger tensor gets
            a separate file.
        overwrite: replace a checkpoint in `folder`; other files there are kept.

    Raises:
        CheckpointError: a tensor is missing, unknown, or has the wrong shape or dtype; a checkpoint
            would be overwritten; or there is too little space. In these cases nothing is written.
    """
    experts: ExpertStorage = "bf16" if "block.0.mlp.mlp1_weight" in tensors else "mxfp4"
    check_config(config)
    _check_tensors(list(tensor_table(config, experts)), tensors)
    parts = (Part(name, 0, tensor) for name, tensor in tensors.items())
    return write_parts(
        folder,
        config,
        parts,
        layout=layout,
        experts=experts,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
    )


def write_parts(
    folder: str | Path,
    config: ModelConfig,
    parts: Iterable[Part],
    *,
    layout: Layout,
    experts: ExpertStorage,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """As `write_checkpoint`, from parts of tensors in any order; holds one part at a time.

    Args:
        metadata: more entries for the metadata of the files of weights.

    Raises:
        CheckpointError: as `write_checkpoint`; the parts are not all rows of all tensors.
    """
    folder = Path(os.path.expanduser(folder))
    check_path(folder)
    check_config(config)
    specs = list(tensor_table(config, experts))
    old = _find_replaced_files(folder, overwrite)
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check_space(folder, sum(spec.nbytes for spec in specs))
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
            partial = Path(name)
            _write(partial, config, specs, parts, layout, experts, max_shard_bytes, metadata)
            for file in old:
                file.unlink()
            written = sorted(partial.iterdir())
            return [file.replace(folder / file.name) for file in written]
    except BaseException:
        if created:
            shutil.rmtree(folder)
        raise


def check_config(config: ModelConfig) -> None:
    """Refuse a configuration that contradicts itself."""
    for field, what in find_contradictions(config):
        raise CheckpointError(f"the configuration cannot be written: {field} {what}")


def _find_replaced_files(folder: Path, overwrite: bool) -> list[Path]:
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
    return old


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


def check_space(folder: Path, needed: int) -> None:
    """Refuse to write `needed` bytes into a folder whose disk has fewer left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free"
        raise CheckpointError(f"not enough disk space for {folder}: {sizes}")


def _write(
    folder: Path,
    config: ModelConfig,
    specs: list[TensorSpec],
    parts: Iterable[Part],
    layout: Layout,
    experts: ExpertStorage,
    max_shard_bytes: int | None,
    metadata: Mapping[str, str] | None,
) -> None:
    shards = list(_split_shards(specs, layout, max_shard_bytes))
    names = [
        f"{SHARD_STEM[layout]}{number:05}-of-{len(shards):05}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    names = ["model.safetensors"] if len(shards) == 1 else names
    files = dict(zip(names, shards, strict=True))
    by_name = {spec.name: spec for spec in specs}
    with TensorFiles(folder, files, metadata) as output:
        for part in parts:
            for name, first, rows in _cut_part(part, by_name, layout):
                output.write(name, first, rows)
    fields = (
        original_fields(config) if layout == "original" else huggingface_fields(config, experts)
    )
    _write_json(folder / CONFIG, fields)
    if layout == "original":
        _write_json(folder / DTYPES, {spec.name: _dtype_name(spec) for spec in specs})
    elif len(shards) > 1:
        total = sum(spec.nbytes for spec in specs)
        places = {stored.name: name for name, shard in files.items() for stored in shard}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _split_shards(
    specs: list[TensorSpec], layout: Layout, most: int | None
) -> Iterator[list[StoredTensor]]:
    """Split the table, in order, into runs of at most `most` bytes."""
    shard: list[StoredTensor] = []
    size = 0
    for stored in (stored for spec in specs for stored in spec.stored(layout)):
        if shard and most is not None and size + stored.nbytes > most:
            yield shard
            shard, size = [], 0
        shard.append(stored)
        size += stored.nbytes
    yield shard


def _cut_part(
    part: Part, specs: Mapping[str, TensorSpec], layout: Layout
) -> Iterator[tuple[str, int, "torch.Tensor"]]:
    """Cut rows of an original tensor into rows of the tensors that store it in `layout`."""
    spec = specs.get(part.name)
    if spec is None:
        raise CheckpointError(f"tensor {part.name} does not belong to this configuration")
    start = 0
    for stored in spec.stored(layout):
        end = start + stored.shape[0]
        first, last = max(start, part.first), min(end, part.first + len(part.rows))
        if first < last:
            rows = part.rows[first - part.first : last - part.first]
            yield stored.name, first - start, rows.mT if spec.is_transposed(layout) else rows
        start = end


def _dtype_name(spec: TensorSpec) -> str:
    return {"expert blocks": "FP4", "expert scales": "UE8"}.get(spec.role, "BF16")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
