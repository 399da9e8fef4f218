"""Read adapter_config.json: the scale of every layer, and the kinds of adapter that are refused.

Only plain LoRA can be merged: W + scale * B A. A field that would change this formula is refused
unless it is off. A field that this list does not know is refused too, unless it is empty.
Source: peft 0.21.2, tuners/lora/config.py.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from oss_lab.checkpoint.fields import LARGEST_NUMBER, parse_object, shorten_json
from oss_lab.checkpoint.names import find_repository
from oss_lab.errors import CheckpointError

CONFIG = "adapter_config.json"
USED = ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
USED += ("target_parameters", "base_model_name_or_path", "init_lora_weights")
WITHOUT_EFFECT = {
    # which layers were trained: the tensors show it
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "bias", "lora_bias", "target_modules_to_tie", "ensure_weight_tying"),
    # how they were trained
    *("lora_dropout", "task_type", "inference_mode", "auto_mapping", "revision", "peft_version"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config"),
    *("megatron_config", "megatron_core", "qalora_group_size"),
    # PEFT ignores it for linear layers and refuses it for experts
    "fan_in_fan_out",
}
KEEPS_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""The values of init_lora_weights that leave the base weights as they are."""


@dataclass(frozen=True)
class AdapterConfig:
    """The fields that determine a merge; names as in adapter_config.json."""

    file: Path
    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, Any]
    alpha_pattern: Mapping[str, Any]
    target_parameters: tuple[str, ...]
    base: str

    def scale(self, layer: str, rank: int) -> float:
        """The factor of B A in this layer: alpha / rank, or alpha / sqrt(rank) for rsLoRA.

        Raises:
            CheckpointError: the configuration gives the layer another rank than its tensors have.
        """
        expected = self._look_up(self.rank_pattern, layer, self.r)
        if expected != rank:
            raise CheckpointError(
                f"{self.file} gives {layer} the rank {expected}, but its tensors have rank {rank};"
                " use the files of one adapter"
            )
        alpha = self._look_up(self.alpha_pattern, layer, self.lora_alpha)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def _look_up(self, pattern: Mapping[str, Any], layer: str, default: float) -> float:
        """The value of the first key that matches the end of the layer's name, as in PEFT."""
        for key, value in pattern.items():
            if re.match(rf"(.*\.)?({key})$", layer):
                return value
        return default

    def compare_base(self, given: str) -> Iterator[str]:
        """Yield a sentence if the adapter names another base model than `given`."""
        names = (find_repository(name) or name for name in (given, self.base))
        ours, theirs = (PurePosixPath(name).name.lower() for name in names)
        if theirs and ours != theirs:
            yield f"{CONFIG} names the base model {self.base}, but it is merged into {given}"


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read adapter_config.json.

    Raises:
        CheckpointError: the file is missing or malformed, or the adapter is not plain LoRA.
    """
    file = folder / CONFIG
    try:
        fields = parse_object(file.read_bytes())
    except OSError:
        inner = sorted(each.parent.name for each in folder.glob(f"*/{CONFIG}"))
        advice = f"use its subfolder {inner[0]}" if inner else "give a folder that PEFT saved"
        raise CheckpointError(f"{folder} contains no {CONFIG}; {advice}") from None
    except ValueError as error:
        raise CheckpointError(f"{file} {error}; copy the adapter again") from None
    _refuse_other_kinds(file, fields)
    ranks, alphas = (_read_pattern(file, fields, f"{kind}_pattern") for kind in ("rank", "alpha"))
    targets = fields.get("target_parameters") or []
    return AdapterConfig(
        file,
        _read_number(file, "r", fields.get("r")),
        _read_number(file, "lora_alpha", fields.get("lora_alpha")),
        fields.get("use_rslora", False),
        ranks,
        alphas,
        tuple(map(str, targets if isinstance(targets, list) else [targets])),
        str(fields.get("base_model_name_or_path") or ""),
    )


def _refuse_other_kinds(file: Path, fields: Mapping[str, Any]) -> None:
    if (kind := fields.get("peft_type")) != "LORA":
        raise CheckpointError(f"{file} has peft_type {shorten_json(kind)}; only LORA can be merged")
    start = fields.get("init_lora_weights", True)
    if start not in KEEPS_THE_BASE:
        raise CheckpointError(
            f"{file} has init_lora_weights {shorten_json(start)}, which changes the base weights;"
            " save the adapter with PEFT's path_initial_model_for_weight_conversion"
        )
    if not isinstance(rslora := fields.get("use_rslora", False), bool):
        raise CheckpointError(f"{file} has use_rslora {shorten_json(rslora)}; use true or false")
    for name, value in fields.items():
        if value and name not in USED and name not in WITHOUT_EFFECT:
            raise CheckpointError(
                f"{file} sets {name} to {shorten_json(value)}, which is not plain LoRA; merge the"
                " adapter with PEFT"
            )


def _read_pattern(file: Path, fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise CheckpointError(f"{file} has {name} {shorten_json(pattern)}, not an object")
    for key, value in pattern.items():
        _read_number(file, f"{name}.{key}", value)
        try:
            re.compile(rf"(.*\.)?({key})$")
        except re.error as error:
            raise CheckpointError(
                f"{file} has the key {shorten_json(key)} in {name}, which is not a pattern"
                f" ({error})"
            ) from None
    return pattern


def _read_number(file: Path, name: str, value: Any) -> Any:
    whole = not name.startswith(("lora_alpha", "alpha"))
    kinds = int if whole else int | float
    number = not isinstance(value, bool) and isinstance(value, kinds)
    if not number or not 0 < value <= LARGEST_NUMBER:
        what = "a positive integer" if whole else "a positive number"
        raise CheckpointError(f"{file} has {name} {shorten_json(value)}; it must be {what}")
    return value
