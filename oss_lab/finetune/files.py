"""LoRA files in PEFT's format: written here, and read through `oss_lab/checkpoint/adapter.py`.

PEFT stacks the ranks of all experts: A is [expert * rank, columns], expert by expert; B is
[rows, rank * expert], rank by rank. It adapts the two parameters of `mlp.experts` by nested
wrappers, and names the inner one `base_layer`. Source: peft 0.21.2, tuners/lora/layer.py.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.checkpoint.adapter import PREFIX, WEIGHTS, Adapter
from oss_lab.checkpoint.adapter import LowRank as Change
from oss_lab.checkpoint.adapter_config import CONFIG
from oss_lab.checkpoint.atomic import write_tensors, write_text
from oss_lab.checkpoint.names import find_repository
from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError
from oss_lab.finetune.lora import Lora, LowRank, LowRankStack, Part
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.targets import TARGETS, matrix_size


def write_adapter(folder: Path, lora: Lora, recipe: Recipe, base: str) -> list[Path]:
    """Write `adapter_config.json` and `adapter_model.safetensors`; return the two files.

    Args:
        base: the name of the base model.
    """
    modules = [name for name in recipe.targets if TARGETS[name].parameter is None]
    parameters = [
        f"{t.module}.{t.parameter}" for t in map(TARGETS.get, recipe.targets) if t and t.parameter
    ]
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": find_repository(base) or base,
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.0,
        "target_modules": modules,
        "target_parameters": parameters,
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_tensors(folder / WEIGHTS, dict(name_tensors(lora)), {"format": "pt"})
    write_text(folder / CONFIG, json.dumps(fields, indent=2) + "\n")
    return [folder / CONFIG, folder / WEIGHTS]


def name_tensors(lora: Lora) -> Iterator[tuple[str, Float[Tensor, "outputs inputs"]]]:
    """Every factor under PEFT's name."""
    for n, layer in enumerate(lora.parts()):
        for name, part in layer.items():
            target = TARGETS[name]
            module = f"{PREFIX}model.layers.{n}.{target.module}"
            if name == "gate_up_proj" and "down_proj" in layer:
                module += ".base_layer"
            a, b = part.down.detach().cpu(), part.up.detach().cpu()
            if target.is_stacked:
                a, b = a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)
            yield f"{module}.lora_A.weight", a
            yield f"{module}.lora_B.weight", b


def to_lora(adapter: Adapter, config: ModelConfig) -> Lora:
    """The low-rank parts of an adapter that was read from files.

    Raises:
        CheckpointError: it also changes something that has no low-rank part here.
    """
    left = dict(adapter.changes)
    layers: list[dict[str, Part]] = []
    for n in range(config.num_hidden_layers):
        layers.append({})
        for name, target in TARGETS.items():
            parameter = target.parameter or "weight"
            tensor = f"model.layers.{n}.{target.module}.{parameter}"
            experts = range(config.num_experts) if target.is_stacked else [None]
            found = {e: left.pop((tensor, e)) for e in experts if (tensor, e) in left}
            changes = {e: each[0] for e, each in found.items() if isinstance(each[0], Change)}
            if len(changes) < len(found) or any(len(each) > 1 for each in found.values()):
                raise _refuse(adapter, tensor)
            if changes:
                shape = matrix_size(config, name)
                layers[-1][name] = _stack(changes, shape, config.num_experts)
    if left:
        raise _refuse(adapter, next(iter(left))[0])
    return Lora(layers)


def _stack(changes: Mapping[int | None, Change], shape: tuple[int, int], experts: int) -> Part:
    """One part from the change of one matrix, or of each expert's; the others stay zero."""
    first = next(iter(changes.values()))
    if None in changes:
        return LowRank(first.up.float().clone(), first.down.float().clone(), first.scale)
    rank = max(each.down.shape[0] for each in changes.values())
    up, down = torch.zeros(experts, shape[0], rank), torch.zeros(experts, rank, shape[1])
    for expert, each in changes.items():
        assert expert is not None
        up[expert, :, : each.up.shape[1]] = each.up * (each.scale / first.scale)
        down[expert, : each.down.shape[0]] = each.down
    return LowRankStack(up, down, first.scale)


def _refuse(adapter: Adapter, tensor: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter in {adapter.folder} replaces {tensor} or adds to a bias or the embedding;"
        " merge it with `oss-lab convert MODEL --to huggingface --out DIR --adapter"
        f" {adapter.folder}`"
    )
