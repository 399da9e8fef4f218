"""Write a stream of values as a checkpoint: experts as MXFP4 or BF16, everything else as BF16.

Each value is rounded once, to the nearest number, ties to even. For MXFP4, the scale of a block is
the smallest power of two with which its largest weight is at most 6 units, so nothing saturates.
That is the scale of downcast_to_mxfp in triton_kernels, with which transformers 5.23.0 quantizes
gpt-oss, except in blocks of subnormal numbers; some of its versions round ties up. A dequantized
gpt-oss gets its numbers back without error. The rounding errors are measured and returned. The
process holds one value at a time, and its rounded copy.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from oss_kernels import mxfp4

from oss_lab.checkpoint.fake import fake_metadata
from oss_lab.checkpoint.layouts import ExpertStorage, Layout, TensorSpec, tensor_table
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.rounding import Rounding, find_kind
from oss_lab.checkpoint.values import Value, read_expert, read_stored, read_values
from oss_lab.checkpoint.write import Part, write_parts
from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError

PIECE_BYTES = 2**26
# The first magnitudes that round to infinity: in BF16 itself, or as 4 units of 2^126 in MXFP4.
LARGEST: dict[ExpertStorage, float] = {"bf16": 511 * 2.0**119, "mxfp4": 3.5 * 2.0**126}


@dataclass(frozen=True)
class Written:
    """A checkpoint that was written.

    Attributes:
        files: its files.
        rounding: the rounding error by kind of tensor, such as `mlp.experts.down_proj`; only kinds
            that were rounded.
    """

    files: list[Path]
    rounding: dict[str, Rounding]


def write_values(
    folder: str | Path,
    config: ModelConfig,
    values: Iterable[Value],
    *,
    layout: Layout = "huggingface",
    experts: ExpertStorage = "mxfp4",
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Written:
    """Write values, in any order and any float dtype, as a checkpoint.

    Args:
        metadata: more entries for the metadata of the files of weights.

    Raises:
        CheckpointError: as `write_checkpoint`; or a value is NaN or infinite after rounding.
    """
    rounding: dict[str, Rounding] = {}
    files = write_parts(
        folder,
        config,
        _round_values(config, values, experts, rounding),
        layout=layout,
        experts=experts,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        metadata=metadata,
    )
    return Written(files, rounding)


def rewrite_checkpoint(
    checkpoint: Checkpoint,
    folder: str | Path,
    *,
    layout: Layout,
    experts: ExpertStorage,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
) -> Written:
    """Write a checkpoint in another layout or storage. Bytes that need no rounding do not change.

    Raises:
        CheckpointError: as `write_values`.
    """
    stored = {located.dtype for located in checkpoint.located.values()}
    if experts != checkpoint.experts or stored & {"F16", "F32"}:
        return write_values(
            folder,
            checkpoint.config,
            read_values(checkpoint),
            layout=layout,
            experts=experts,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
            metadata=fake_metadata(checkpoint),
        )
    files = write_parts(
        folder,
        checkpoint.config,
        copy_parts(checkpoint),
        layout=layout,
        experts=experts,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        metadata=fake_metadata(checkpoint),
    )
    return Written(files, {})


def copy_parts(checkpoint: Checkpoint) -> Iterator[Part]:
    """The tensors of a checkpoint with unchanged bytes; experts one at a time."""
    for spec in tensor_table(checkpoint.config, checkpoint.experts):
        if spec.role.startswith("expert") and spec.role != "expert bias":
            for expert in range(checkpoint.config.num_experts):
                yield Part(spec.name, expert, read_expert(checkpoint, spec, expert)[None])
            continue
        first = 0
        for stored in spec.stored(checkpoint.layout):
            rows = stored.shape[0]
            step = max(1, PIECE_BYTES * rows // stored.nbytes)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                piece = read_stored(checkpoint.located[stored.name], start, count)
                yield Part(spec.name, first + start, piece)
            first += rows


def _round_values(
    config: ModelConfig,
    values: Iterable[Value],
    experts: ExpertStorage,
    rounding: dict[str, Rounding],
) -> Iterator[Part]:
    """Round each value to its storage, and add its error to `rounding`."""
    places = _find_places(config)
    for value in values:
        if value.name not in places:
            raise CheckpointError(f"tensor {value.name} does not belong to this configuration")
        spec, first = places[value.name]
        _check_range(value, LARGEST[experts if spec.role == "expert weight" else "bf16"])
        kind = find_kind(value.name)
        if spec.role == "expert weight" and value.expert is not None:
            first = value.expert
            if experts == "mxfp4":
                blocks, scales = mxfp4.pack(value.tensor)
                rounding.setdefault(kind, Rounding()).add_mxfp4(value.tensor, blocks, scales)
                yield Part(f"{spec.name}.blocks", first, blocks[None])
                yield Part(f"{spec.name}.scales", first, scales[None])
                continue
        rounded = value.tensor.to(torch.bfloat16)
        if value.tensor.dtype != torch.bfloat16:
            rounding.setdefault(kind, Rounding()).add_bf16(value.tensor, rounded)
        yield Part(spec.name, first, rounded if value.expert is None else rounded[None])


def _check_range(value: Value, limit: float) -> None:
    """Refuse a tensor with NaN, infinity, or a magnitude of at least `limit`. Reads in pieces."""
    rows = max(1, PIECE_BYTES // value.tensor[0].nbytes)
    for piece in value.tensor.split(rows):
        largest = float(piece.abs().max())
        if largest < limit:
            continue
        where = "" if value.expert is None else f" of expert {value.expert}"
        what = "NaN or infinity"
        if math.isfinite(largest):
            what = f"{largest:.3g}, which rounds to infinity"
        raise CheckpointError(f"tensor {value.name}{where} contains {what}")


def _find_places(config: ModelConfig) -> dict[str, tuple[TensorSpec, int]]:
    """For each Hugging Face name, the original tensor that contains it and its first row there."""
    places = {}
    for spec in tensor_table(config, "bf16"):
        first = 0
        for stored in spec.huggingface:
            places[stored.name] = spec, first
            first += stored.shape[0]
    return places
