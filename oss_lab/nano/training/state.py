"""The state of an unfinished run, a safetensors file: weights, the optimizers' moments, the step.

An expert that no token ever chose has no moments yet, and has to go on having none.
"""

from collections.abc import Iterator, Sequence
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
    share: torch.Tensor,
    step: int,
) -> None:
    """Write the state, all of it or nothing: a kill in between leaves the old one."""
    tensors = {"step": torch.tensor(step), "share": share}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach()
        for optimizer in optimizers:
            for moment, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{moment}/{name}"] = value
    write_tensors(file, tensors)


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the state.

    Raises:
        LabError: the file is damaged, or no state of this version.
    """
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise LabError(f"{file} is damaged ({error}); begin anew in another folder") from None
    if not {"step", "share"} <= tensors.keys() or tensors["step"].numel() != 1:
        raise LabError(f"{file} is no state of this version; begin anew in another folder")
    return tensors


def steps_done(file: Path) -> int:
    """How many steps the state in `file` has behind it; 0 if there is none."""
    return int(read_state(file)["step"]) if file.exists() else 0


def load_weights(file: Path, model: nn.Module) -> int:
    """Fill the model; returns the number of steps done.

    Raises:
        LabError: the file is damaged, or of another model.
    """
    tensors = read_state(file)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fill(parameter, tensors, f"weight/{name}", file)
    return int(tensors["step"])


def load_state(
    file: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    share: torch.Tensor,
) -> int:
    """Fill model, optimizers and running shares; returns the number of steps done.

    Raises:
        LabError: the file is damaged, or of another model.
    """
    tensors = read_state(file)
    fill(share, tensors, "share", file)
    for optimizer in optimizers:
        kinds = set[str]()
        for parameter, name in optimized(optimizer, model):
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
                    raise unfit(file, f"{min(odd)}/{name}")
    return load_weights(file, model)


def fill(target: torch.Tensor, tensors: dict[str, torch.Tensor], name: str, file: Path) -> None:
    """Copy the tensor of this name, which has to be there in the same shape."""
    found = tensors.get(name)
    if found is None or found.shape != target.shape:
        raise unfit(file, name)
    target.copy_(found)


def unfit(file: Path, name: str) -> LabError:
    """A tensor that is missing, or of another shape."""
    return LabError(
        f"{file} does not fit the recipe beside it: {name} is missing or of another shape; put the"
        " right file back, or begin anew in another folder"
    )


def optimized(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> Iterator[tuple[nn.Parameter, str]]:
    """The optimizer's parameters with their names in the model."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield parameter, names[parameter]
