"""Write a trained model as a checkpoint in the published format: MXFP4 experts, the rest BF16."""

from pathlib import Path

import torch
from oss_kernels import mxfp4
from torch import Tensor

from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.model import Transformer
from oss_lab.model.experts import DenseExperts


def pack_tensors(model: Transformer) -> dict[str, Tensor]:
    """Every tensor by its original name, rounded to the checkpoint's data types."""
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, DenseExperts):
            matrices = torch.stack([matrix.detach().cpu() for matrix in module.dense])
            blocks, scales = mxfp4.quantize(matrices)
            tensors[f"{name}.blocks"], tensors[f"{name}.scales"] = blocks, scales
    for name, parameter in model.named_parameters():
        if ".dense." not in name:
            tensors[name] = parameter.detach().cpu().to(torch.bfloat16).contiguous()
    return tensors


def export(model: Transformer, folder: Path) -> None:
    """Write a checkpoint in the original layout, replacing an existing one."""
    write_checkpoint(folder, model.config, pack_tensors(model), overwrite=True)
