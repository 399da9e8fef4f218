"""Load a checkpoint as a model on a device.

Packed expert matrices stay packed. The reference engine dequantizes them on demand into a cache of
at most `expert_cache_bytes`; the kernels read them packed. Dense experts stay dense, and only the
reference engine can use them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.model import Transformer
from oss_lab.model.experts import DenseExperts, ExpertCache, PackedExperts

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@torch.inference_mode(False)
def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
) -> Transformer:
    """Load the checkpoint's model in evaluation mode, without gradients.

    Its parameters are ordinary tensors, even if you call this in inference mode. On the CPU in
    bfloat16, they stay views of the mapped file.
    """
    is_dense = checkpoint.experts == "bf16"
    with torch.device("meta"):
        model = Transformer(checkpoint.config, DenseExperts if is_dense else PackedExperts)
    placed = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in _name_parameters(checkpoint)
    }
    model.load_state_dict(placed, assign=True)
    cache = ExpertCache(expert_cache_bytes)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache
    return model.eval().requires_grad_(False)


def _name_parameters(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """The tensors by parameter name; dense experts one at a time."""
    specs = {spec.name: spec for spec in tensor_table(checkpoint.config, checkpoint.experts)}
    for name, tensor in checkpoint.tensors():
        if specs[name].role == "expert weight":
            yield from ((f"{name}.dense.{n}", matrix) for n, matrix in enumerate(tensor))
        else:
            yield name, tensor
