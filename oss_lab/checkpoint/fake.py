"""Checkpoints with random weights, in the shapes and files of the published ones.

With them, everything but the answers can be tried without a download: disk, memory, speed, traces.
Sums and logits have an RMS near one, so attention, routers and clamps behave as in a trained model.
Tensors are drawn and written in chunks, so memory stays small. Both layouts of a seed have the same
weights. The metadata of each file says that they are random. Left out: tokenizer files.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from oss_lab.checkpoint.header import read_metadata
from oss_lab.checkpoint.layouts import Layout, TensorSpec, tensor_table
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.write import Part, write_parts
from oss_lab.config import MODELS, MXFP4_BLOCK, ModelConfig
from oss_lab.errors import CheckpointError
from oss_lab.progress import track_progress

if TYPE_CHECKING:
    import torch
    from jaxtyping import Shaped

CHUNK = 2**23  # items drawn at a time, at least one row
CODE_RMS = 4.63  # of a random MXFP4 code whose scale is 1 or 2
SCALE_BIAS = 127
SHARD_BYTES: dict[tuple[str, Layout], int] = {
    ("120b", "original"): 10 * 10**9,  # seven files
    ("20b", "huggingface"): 48 * 10**8,  # three files
    ("120b", "huggingface"): 48 * 10**8,  # fifteen
}
"""The largest file, as published; others are one file."""
ENTRY = "oss_lab.fake"


def write_fake(
    name: str,
    folder: str | Path,
    *,
    layout: Layout = "original",
    layers: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Write a checkpoint with random weights; return its files.

    Args:
        name: a name in MODELS, whose shapes it gets.
        layers: number of layers, by default the model's.
        seed: of the random numbers; the same seed gives the same bytes.

    Raises:
        CheckpointError: `name` or `layers` cannot be used, `folder` is not empty and `overwrite`
            is False, or there is too little space. Nothing is written.
    """
    if name not in MODELS:
        raise CheckpointError(f"{name!r} is not a model; use one of {', '.join(MODELS)}")
    config = MODELS[name]
    if layers is not None and layers < 1:
        raise CheckpointError(f"layers is {layers}; it must be 1 or more")
    if layers is not None:
        config = replace(config, num_hidden_layers=layers, layer_types=())
    most = SHARD_BYTES.get((name, layout))
    depth = config.num_hidden_layers
    mark = f"random weights in the shapes of {name}, {depth} layer{'s' * (depth > 1)}, seed {seed}"
    return write_random(config, folder, mark, layout, most, seed=seed, overwrite=overwrite)


def write_random(
    config: ModelConfig,
    folder: str | Path,
    mark: str,
    layout: Layout,
    max_shard_bytes: int | None = None,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Write random weights for any configuration, as `write_fake` does; `mark` names them."""
    folder = Path(os.path.expanduser(folder))
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder} is not empty; choose another folder, or overwrite it with overwrite=True"
            " (command line: --overwrite)"
        )
    return write_parts(
        folder,
        config,
        draw_parts(config, seed),
        layout=layout,
        experts="mxfp4",
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        metadata={ENTRY: mark},
    )


def read_fake_mark(checkpoint: Checkpoint) -> str | None:
    """What the checkpoint's files say about their random weights; None if they are not fake."""
    files = {located.file for located in checkpoint.located.values()}
    return next((m for file in sorted(files) if (m := read_metadata(file).get(ENTRY))), None)


def fake_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata to keep when random weights are written again; empty for real ones."""
    mark = read_fake_mark(checkpoint)
    return {} if mark is None else {ENTRY: mark}


def draw_parts(config: ModelConfig, seed: int) -> Iterator[Part]:
    """Random weights for every tensor, CHUNK items at a time, with a progress bar."""
    chunks = [
        (spec, first, min(first + step, spec.shape[0]))
        for spec in tensor_table(config)
        for step in [max(1, CHUNK // math.prod(spec.shape[1:]))]
        for first in range(0, spec.shape[0], step)
    ]
    for spec, first, last in track_progress(chunks, "random weights", "chunk"):
        yield Part(spec.name, first, draw_rows(spec, first, last, seed))


def draw_rows(
    spec: TensorSpec, first: int, last: int, seed: int
) -> "Shaped[torch.Tensor, 'rows ...']":
    """Rows [first, last) of a random tensor, BF16 or U8, for this seed and division into chunks."""
    import numpy as np
    import torch

    rng = np.random.default_rng([seed, crc32(spec.name.encode()), first])
    shape = (last - first, *spec.shape[1:])
    if spec.role == "expert blocks":
        codes = np.frombuffer(bytearray(rng.bytes(math.prod(shape))), dtype=np.uint8)
        return torch.from_numpy(codes).reshape(shape)
    if spec.role == "expert scales":
        fan_in = spec.shape[-1] * MXFP4_BLOCK
        exponent = SCALE_BIAS - round(math.log2(CODE_RMS * fan_in**0.5))
        return torch.from_numpy(rng.integers(exponent, exponent + 2, shape, dtype=np.uint8))
    values = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if spec.role == "norm":
        values = 1 + 0.2 * values
    elif len(spec.shape) == 1 or spec.role == "expert bias":
        values *= 0.5
    elif spec.role != "embedding":
        values *= spec.shape[-1] ** -0.5
    return values.bfloat16()
