"""The state of a run as a safetensors file: weights, optimizer moments and the step.

An expert that was never chosen has no optimizer moments. Loading the state must not create any.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from oss_lab.checkpoint.atomic import write_tensors
from oss_lab.errors import LabError


def save_state(
    file: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    others: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """Write the state atomically: if the process is killed meanwhile, the old state remains.

    Args:
        others: what else the run has to keep, by name.
    """
    tensors = {"step": torch.tensor(step), **others}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach()
        for optimizer in optimizers:
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = value
    write_tensors(file, tensors)


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the state.

    Raises:
        LabError: the file is damaged, or not a state of this version.
    """
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise LabError(f"{file} is damaged ({error}); start over in another folder") from None
    if "step" not in tensors or tensors["step"].numel() != 1:
        raise LabError(f"{file} is not a state of this version; start over in another folder")
    return tensors


def count_steps_done(file: Path) -> int:
    """The number of finished steps of the state in `file`; 0 if there is no file."""
    return int(read_state(file)["step"]) if file.exists() else 0


def load_weights(file: Path, model: nn.Module) -> int:
    """Load the weights into the model; returns the number of finished steps.

    Raises:
        LabError: the file is damaged, or of another model.
    """
    tensors = read_state(file)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            copy_tensor(parameter, tensors, f"weight/{name}", file)
    return int(tensors["step"])


def load_state(
    file: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    others: Mapping[str, torch.Tensor],
) -> int:
    """Load model, optimizers and the others; returns the number of finished steps.

    Raises:
        LabError: the file is damaged, or of another model.
    """
    tensors = read_state(file)
    for name, other in others.items():
        copy_tensor(other, tensors, name, file)
    for optimizer in optimizers:
        kinds = set[str]()
        for parameter, name in find_optimized_parameters(optimizer, model):
            moments = {
                key.removesuffix(f"/{name}"): value.to(parameter.device)
                for key, value in tensors.items()
                if key.endswith(f"/{name}") and not key.startswith("weight/")
            }
            if moments:
                optimizer.state[parameter] = moments
                kinds = kinds or moments.keys()
                odd = kinds ^ moments.keys()
                odd |= {k for k, v in moments.items() if v.dim() and v.shape != parameter.shape}
                if odd:
                    raise misfit_error(file, f"{min(odd)}/{name}")
    return load_weights(file, model)


def copy_tensor(
    target: torch.Tensor, tensors: dict[str, torch.Tensor], name: str, file: Path
) -> None:
    """Copy the tensor of this name into `target`; it must exist and have the same shape."""
    found = tensors.get(name)
    if found is None or found.shape != target.shape:
        raise misfit_error(file, name)
    target.copy_(found)


def misfit_error(file: Path, name: str) -> LabError:
    """The error for a tensor that is missing or has another shape."""
    return LabError(
        f"{file} does not fit the recipe next to it: {name} is missing or has another shape;"
        " restore the right file, or start over in another folder"
    )


def find_optimized_parameters(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> Iterator[tuple[nn.Parameter, str]]:
    """Yield the optimizer's parameters with their names in the model."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter, names[parameter]
