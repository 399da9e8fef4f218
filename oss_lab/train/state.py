"""The state of an unfinished run as one safetensors file: weights, AdamW's moments, the step.

An expert that no token ever chose has no moments yet, and AdamW has to go on seeing none.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from oss_lab.errors import LabError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # fused AdamW keeps all three beside the parameter


def save_state(file: Path, model: nn.Module, optimizer: torch.optim.AdamW, step: int) -> None:
    """Write beside the old file first, so that a kill in between loses nothing."""
    tensors = {"step": torch.tensor(step)}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value
    beside = file.with_suffix(".partial")
    save_file(tensors, beside)
    beside.replace(file)


def read_state(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise LabError(f"{file} is damaged ({error}); remove it to begin anew.") from None


def steps_done(file: Path) -> int:
    """How many steps the state in `file` has behind it; 0 if there is none."""
    return int(read_state(file)["step"]) if file.exists() else 0


def load_weights(file: Path, model: nn.Module) -> int:
    """Fill the model; returns the number of steps done."""
    tensors = read_state(file)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
    return int(tensors["step"])


def load_state(file: Path, model: nn.Module, optimizer: torch.optim.AdamW) -> int:
    """Fill model and optimizer; returns the number of steps done."""
    tensors = read_state(file)
    for name, parameter in model.named_parameters():
        if f"step/{name}" in tensors:
            optimizer.state[parameter] = {
                moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS
            }
    return load_weights(file, model)
