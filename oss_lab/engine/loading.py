"""From a checkpoint to a model that can run, on a device and with kernels.

Expert matrices stay packed. The reference dequantizes them on demand into a cache of at most
`expert_cache_bytes`; the other kernels read them as they are.
"""

import os

import torch
from oss_kernels.backends import Asked, Backend, UnusableBackend, choose

from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.kernel_model import KernelTransformer
from oss_lab.errors import LabError
from oss_lab.model import Transformer
from oss_lab.model.experts import ExpertCache, PackedExperts

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def chosen_device(device: str | None) -> torch.device:
    """The requested device, or the best there is."""
    wanted = device or os.environ.get("OSS_LAB_DEVICE")
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
        return torch.device(wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"device {wanted!r} cannot be used here: {reason}") from None


def chosen_kernels(
    kernels: Asked | None, device: torch.device, default: Asked = "reference"
) -> Backend:
    """The requested kernels, if they can run on the device."""
    asked = kernels or os.environ.get("OSS_LAB_KERNELS") or default
    try:
        return choose(asked, device)
    except UnusableBackend as error:
        raise LabError(str(error)) from None


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    kernels: Backend | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
) -> Transformer:
    """The checkpoint's model in evaluation mode, with no gradients.

    Without kernels it is the reference model. On the CPU in bfloat16 the tensors stay the file's
    own mapped bytes.
    """
    with torch.device("meta"):
        if kernels is None or kernels.name == "reference":
            model = Transformer(checkpoint.config)
        else:
            model = KernelTransformer(checkpoint.config, kernels)
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
