"""Everything that determines a fine-tuning run, and the `recipe.json` that stores it."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from oss_kernels.backends import KernelName

from oss_lab.checkpoint.atomic import write_text
from oss_lab.checkpoint.fields import parse_object, shorten_json
from oss_lab.checkpoint.plan import Dtype, is_small
from oss_lab.config import ModelConfig
from oss_lab.engine.choice import choose_kernels
from oss_lab.errors import LabError, explain_unknown
from oss_lab.finetune.targets import TARGETS, expand_groups
from oss_lab.harmony.messages import CHANNELS, EFFORTS, ROLES, Effort
from oss_lab.nano.training.records import read_text

RECIPE = "recipe.json"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; `make_recipe` has the defaults of a small model.

    Attributes:
        rank, alpha: the change of a matrix is alpha / rank * up @ down, with `rank` inner numbers.
        targets: the matrices that get one, by PEFT's names; see `oss_lab/finetune/targets.py`.
        epochs: how often every example is read.
        steps: updates; if given, it determines the end instead of `epochs`.
        batch: packed rows per update.
        rows: packed rows per forward pass; fewer need less memory and give the same result.
        length: tokens per row, and the most that an example may have.
        learning_rate: the peak; it rises over `warm_up` steps, then falls as a cosine to 2%.
        clip: the largest norm of an update's gradient.
        seed: of the first weights and of the order of the examples.
        dtype: of the frozen weights and of the activations. What is trained is always float32.
        roles, channels: whose tokens count in the loss; channels apply to the assistant.
        effort: of examples that name none; None is the default of the vocabulary.
        recompute: keep only the input of each layer for the backward pass, and compute the rest
            again. Needs less memory and a third more time, and gives the same numbers.
        kernels: what computes attention and packed experts; other kernels round differently.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = tuple(each for each in TARGETS if each != "router")
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    rows: int = 1
    length: int = 1024
    learning_rate: float = 2e-4
    warm_up: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    dtype: Dtype = "bfloat16"
    roles: tuple[str, ...] = ("assistant",)
    channels: tuple[str, ...] = CHANNELS
    effort: Effort | None = None
    recompute: bool = True
    kernels: KernelName = "reference"


def make_recipe(config: ModelConfig, device: torch.device = CPU, **settings: Any) -> Recipe:
    """A recipe for this model: the defaults of its size, and the settings that differ.

    A small model trains in float32 on short rows, keeps all activations, and needs larger steps. A
    larger one takes the kernels made for the device.

    Raises:
        LabError: there is no such setting, or the model cannot be trained with it.
    """
    known = [field.name for field in fields(Recipe)]
    for name in settings:
        if name not in known:
            raise LabError(explain_unknown("setting", name, known))
    for name in ("targets", "roles", "channels"):
        if name in settings:
            given = settings[name]
            settings[name] = (given,) if isinstance(given, str) else tuple(given)
    if "targets" in settings:
        settings["targets"] = expand_groups(settings["targets"])
    defaults: dict[str, Any] = {}
    if is_small(config):
        defaults = {"dtype": "float32", "length": config.initial_context_length, "batch": 32}
        defaults |= {"rows": 4, "learning_rate": 1e-3, "recompute": False}
    default = "reference" if is_small(config) else "auto"
    kernels, _ = choose_kernels(settings.pop("kernels", None), device, default)
    recipe = Recipe(**(defaults | settings), kernels=kernels.name)
    check_recipe(recipe, config)
    return recipe


def check_recipe(recipe: Recipe, config: ModelConfig) -> None:
    """Raise LabError for a setting that this model cannot be trained with."""
    for name in ("rank", "epochs", "batch", "rows", "length"):
        if getattr(recipe, name) < 1:
            raise LabError(f"{name} is {getattr(recipe, name)}; it must be 1 or more")
    if recipe.steps is not None and recipe.steps < 1:
        raise LabError(f"steps is {recipe.steps}; it must be 1 or more")
    for name in ("alpha", "learning_rate", "clip"):
        if not 0 < getattr(recipe, name) < float("inf"):
            raise LabError(f"{name} is {getattr(recipe, name):g}; it must be a number above 0")
    for name in ("warm_up", "weight_decay", "seed"):
        if not 0 <= getattr(recipe, name) < 2**63:
            raise LabError(f"{name} is {getattr(recipe, name)}; it must be 0 or more")
    if recipe.length > config.max_context_length:
        raise LabError(
            f"length is {recipe.length:,}; the model's context has"
            f" {config.max_context_length:,} tokens"
        )
    for what, given, known in (
        ("target", recipe.targets, TARGETS),
        ("role", recipe.roles, ROLES),
        ("channel", recipe.channels, CHANNELS),
    ):
        for name in given:
            if name not in known:
                raise LabError(explain_unknown(what, name, known))
        if not given:
            raise LabError(f"there is no {what}; give one of {', '.join(known)}")
    if recipe.effort not in (None, *EFFORTS):
        raise LabError(explain_unknown("effort", recipe.effort, EFFORTS))


@dataclass(frozen=True)
class Origin:
    """What a run was made from.

    Attributes:
        base: the name of the base model, as given.
        checkpoint: SHA-256 of the base model.
        data: SHA-256 of the examples' tokens.
    """

    base: str
    checkpoint: str
    data: str


def write_recipe(folder: Path, recipe: Recipe, origin: Origin) -> None:
    """Write `recipe.json`."""
    write_text(folder / RECIPE, json.dumps(_to_json(recipe, origin), indent=2) + "\n")


def compare_recipe(folder: Path, recipe: Recipe, origin: Origin) -> None:
    """Raise LabError if the run in `folder` has another recipe, base model or examples."""
    file = folder / RECIPE
    try:
        found = parse_object(read_text(file).encode())
    except ValueError as error:
        raise LabError(f"{file} {error}; choose another folder") from None
    wanted = _to_json(recipe, origin)
    for name, value in wanted.items():
        if found.get(name) == value:
            continue
        what = {"checkpoint": "another base model", "data": "other examples"}.get(name)
        what = what or f"{name} {shorten_json(found.get(name))}, not {shorten_json(value)}"
        raise LabError(
            f"the run in {folder} has {what}; use what {file} records, or another folder"
        )


def _to_json(recipe: Recipe, origin: Origin) -> dict[str, Any]:
    return json.loads(json.dumps({**asdict(recipe), **asdict(origin)}))
