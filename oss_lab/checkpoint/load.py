"""Load a checkpoint as a model on a device.

Expert matrices stay packed. The reference engine dequantizes them on demand into a cache of at most
`expert_cache_bytes`; the kernels read them packed.
"""

import torch

from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.model import Transformer
from oss_lab.model.experts import ExpertCache, PackedExperts

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
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    placed = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in checkpoint.tensors()
    }
    model.load_state_dict(placed, assign=True)
    cache = ExpertCache(expert_cache_bytes)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache
    return model.eval().requires_grad_(False)
