"""The weights of a checkpoint as a stream of float values, whatever the layout and storage.

`read_values` yields one tensor at a time under its published Hugging Face name. An expert's matrix
comes alone, dequantized if it is packed, and always as outputs x inputs. A tool that edits weights
puts a generator between `read_values` and `write_values`, so a checkpoint larger than memory can be
edited. Files are read, not mapped: the process holds one tensor at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from oss_kernels import mxfp4
from torch import Tensor

from oss_lab.checkpoint.header import TensorLocation
from oss_lab.checkpoint.layouts import TensorSpec, tensor_table
from oss_lab.checkpoint.read import Checkpoint

TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "U8": torch.uint8,
}


@dataclass(frozen=True)
class Value:
    """One tensor, or one expert's matrix.

    Attributes:
        name: its Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`. An expert's
            matrix is named `model.layers.0.mlp.experts.gate_up_proj` or `…down_proj`.
        expert: the number of the expert whose matrix it is; None for every other tensor.
        tensor: the values in a float dtype. A matrix is outputs x inputs; the rows of
            `gate_up_proj` alternate gate, up, gate, up.
    """

    name: str
    expert: int | None
    tensor: Float[Tensor, "*shape"]


def read_values(checkpoint: Checkpoint) -> Iterator[Value]:
    """Yield every value in the order of the tensor table, BF16 unless stored as F16 or F32."""
    packed = {spec.name: spec for spec in tensor_table(checkpoint.config)}
    for spec in tensor_table(checkpoint.config, "bf16"):
        names = spec.huggingface
        if spec.role != "expert weight":
            yield from (
                Value(name.name, None, part)
                for name, part in zip(names, read_rows(checkpoint, spec), strict=True)
            )
            continue
        for expert in range(checkpoint.config.num_experts):
            if checkpoint.experts == "bf16":
                matrix = read_expert(checkpoint, spec, expert)
            else:
                blocks = read_expert(checkpoint, packed[f"{spec.name}.blocks"], expert)
                scales = read_expert(checkpoint, packed[f"{spec.name}.scales"], expert)
                matrix = mxfp4.dequantize(blocks, scales, torch.bfloat16)
            yield Value(names[0].name, expert, matrix)


def read_expert(checkpoint: Checkpoint, spec: TensorSpec, expert: int) -> Tensor:
    """One expert's part of a tensor of all experts, in the orientation of the original layout."""
    [stored] = spec.stored(checkpoint.layout)
    part = read_stored(checkpoint.located[stored.name], expert, 1)[0]
    # Copied once: every later pass over a transposed view would take ten times as long.
    return part.T.contiguous() if spec.is_transposed(checkpoint.layout) else part


def read_stored(located: TensorLocation, first: int = 0, count: int | None = None) -> Tensor:
    """Read `count` rows of a tensor, from `first`, into memory; all rows by default."""
    rows, *rest = located.shape
    count = rows if count is None else count
    row_bytes = located.nbytes // rows
    contents = np.fromfile(
        located.file,
        dtype=np.uint8,
        count=count * row_bytes,
        offset=located.start + first * row_bytes,
    )
    return torch.from_numpy(contents).view(TORCH_DTYPES[located.dtype]).view(count, *rest)


def read_rows(checkpoint: Checkpoint, spec: TensorSpec) -> Iterator[Tensor]:
    """The rows of an original tensor, cut as Hugging Face's layout cuts them."""
    if checkpoint.layout == "huggingface":
        yield from (read_stored(checkpoint.located[stored.name]) for stored in spec.huggingface)
        return
    located, row = checkpoint.located[spec.name], 0
    for stored in spec.huggingface:
        yield read_stored(located, row, stored.shape[0])
        row += stored.shape[0]
