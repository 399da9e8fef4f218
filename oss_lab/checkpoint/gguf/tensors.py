"""Every tensor of a GGUF file of gpt-oss: its name, its storage, and a function that reads it.

MXFP4 experts keep every number, BF16 matrices every byte. The router, and everything with one
value per output (norms, biases, sinks), is stored as F32, because llama.cpp asks for that. The
interleaved rows of gate and up become two tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from oss_lab.checkpoint.gguf.blocks import to_gguf_blocks
from oss_lab.checkpoint.layouts import TensorSpec, tensor_table
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.values import read_rows, read_stored

Storage = Literal["F32", "BF16", "MXFP4"]
BYTES_PER_BLOCK = 17

NAMES = {
    "embedding.weight": ("token_embd.weight",),
    "unembedding.weight": ("output.weight",),
    "norm.scale": ("output_norm.weight",),
    "attn.norm.scale": ("attn_norm.weight",),
    "attn.sinks": ("attn_sinks.weight",),
    "attn.qkv.weight": ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
    "attn.qkv.bias": ("attn_q.bias", "attn_k.bias", "attn_v.bias"),
    "attn.out.weight": ("attn_output.weight",),
    "attn.out.bias": ("attn_output.bias",),
    "mlp.norm.scale": ("post_attention_norm.weight",),
    "mlp.gate.weight": ("ffn_gate_inp.weight",),
    "mlp.gate.bias": ("ffn_gate_inp.bias",),
    "mlp.mlp1_weight": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
    "mlp.mlp1_bias": ("ffn_gate_exps.bias", "ffn_up_exps.bias"),
    "mlp.mlp2_weight": ("ffn_down_exps.weight",),
    "mlp.mlp2_bias": ("ffn_down_exps.bias",),
}
"""The names in GGUF of each original tensor, without the number of the layer."""


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor of the file.

    Attributes:
        shape: of its numbers, the longest stride first; GGUF stores it reversed.
        read: returns its bytes, as float32 for F32 and as uint8 otherwise.
    """

    name: str
    shape: tuple[int, ...]
    storage: Storage
    read: Callable[[], np.ndarray]


def list_tensors(checkpoint: Checkpoint) -> Iterator[GGUFTensor]:
    """Yield the tensors in the order of the tensor table; nothing is read before `read`."""
    specs = {spec.name: spec for spec in tensor_table(checkpoint.config, checkpoint.experts)}
    for spec in specs.values():
        if spec.role == "expert scales":
            continue  # read with their blocks
        key, prefix = _split_name(spec.name)
        names = [f"{prefix}{name}" for name in NAMES[key.removesuffix(".blocks")]]
        for n, name in enumerate(names):
            shape = _shape(spec, n, len(names))
            if spec.role == "expert blocks":
                scales = specs[spec.name.replace(".blocks", ".scales")]
                storage, read = "MXFP4", _expert_reader(checkpoint, spec, scales, n, len(names))
            else:
                is_matrix = len(shape) > 1 and spec.role not in ("router", "expert bias")
                storage = "BF16" if is_matrix else "F32"
                read = _plain_reader(checkpoint, spec, n, len(names), storage)
            yield GGUFTensor(name, shape, storage, read)


def _split_name(name: str) -> tuple[str, str]:
    """The key in NAMES, and the prefix with the layer's number."""
    if not name.startswith("block."):
        return name, ""
    _, layer, key = name.split(".", 2)
    return key, f"blk.{layer}."


def _shape(spec: TensorSpec, n: int, count: int) -> tuple[int, ...]:
    if spec.name.endswith(("qkv.weight", "qkv.bias")):
        return spec.huggingface[n].shape
    experts, *rest = spec.shape
    if not spec.role.startswith("expert"):
        return spec.shape
    rows = (experts, rest[0] // count)
    if spec.role == "expert blocks":
        return (*rows, rest[1] * 32)
    return (*rows, *rest[1:])


def _expert_reader(
    checkpoint: Checkpoint, blocks: TensorSpec, scales: TensorSpec, n: int, count: int
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        parts = (
            read_stored(checkpoint.located[spec.stored(checkpoint.layout)[0].name])[:, n::count]
            for spec in (blocks, scales)
        )
        return to_gguf_blocks(*parts).numpy()

    return read


def _plain_reader(
    checkpoint: Checkpoint, spec: TensorSpec, n: int, count: int, storage: Storage
) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        tensor: Tensor
        if spec.role == "expert weight":
            tensor = read_stored(checkpoint.located[spec.stored(checkpoint.layout)[0].name])
            tensor = tensor.mT if spec.is_transposed(checkpoint.layout) else tensor
            tensor = tensor[:, n::count]
        elif spec.role == "expert bias":
            tensor = next(read_rows(checkpoint, spec))[:, n::count]
        else:
            tensor = list(read_rows(checkpoint, spec))[n]
        if storage == "F32":
            return tensor.float().numpy()
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()

    return read
