"""Load a checkpoint as a model on a device.

Packed expert matrices stay packed. The reference engine dequantizes them on demand into a cache of
at most `expert_cache_bytes`; the kernels read them packed. Dense experts stay dense, and only the
reference engine can use them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.parallel.model import SplitTransformer
from oss_lab.engine.parallel.processes import Processes
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
    processes: Processes | None = None,
) -> Transformer:
    """Load the checkpoint's model in evaluation mode, without gradients.

    Its parameters are ordinary tensors, even if you call this in inference mode. On the CPU in
    bfloat16, they stay views of the mapped file. With `processes`, only this one's part of each
    tensor is read and kept.
    """
    make_experts = DenseExperts if checkpoint.experts == "bf16" else PackedExperts
    with torch.device("meta"):
        if processes is None:
            model, cut = Transformer(checkpoint.config, make_experts), keep_all
        else:
            model = SplitTransformer(checkpoint.config, processes, make_experts)
            cut = model.part.cut
    placed = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in _name_parameters(checkpoint, cut)
    }
    model.load_state_dict(placed, assign=True)
    cache = ExpertCache(expert_cache_bytes)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache
    return model.eval().requires_grad_(False)


def keep_all(name: str, tensor: Tensor) -> Tensor:
    """The part of a tensor that one process keeps without others: all of it."""
    return tensor


def _name_parameters(
    checkpoint: Checkpoint, cut: Callable[[str, Tensor], Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The part of each tensor that `cut` keeps, by parameter name; dense experts one at a time."""
    specs = {spec.name: spec for spec in tensor_table(checkpoint.config, checkpoint.experts)}
    for name, whole in checkpoint.tensors():
        tensor = cut(name, whole)
        if specs[name].role == "expert weight":
            yield from ((f"{name}.dense.{n}", matrix) for n, matrix in enumerate(tensor))
        else:
            yield name, tensor
