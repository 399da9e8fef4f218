"""Everything that determines a training run, and the `recipe.json` that stores it."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from oss_lab.config import GPT_OSS_NANO, ModelConfig
from oss_lab.errors import LabError
from oss_lab.nano.training.log import LOG, has_steps
from oss_lab.nano.training.records import parse_fields, read_text

RECIPE = "recipe.json"
STATE = "state.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the trained weights.

    Attributes:
        mix: the problems to draw, a key of `oss_lab.nano.tasks.mix.MIXES`.
        tokens: about how many tokens a step reads, with padding but without the shared openings.
        learning_rate, adam_rate: the peak learning rates of Muon and of AdamW.
        balance: the initial weight of the load-balancing loss; it falls linearly to a tenth.
        rounded: the share of the steps, at the end, that trains with MXFP4 rounding.
        look_back: heads of the first layer start out attending 1 to `look_back` tokens back. In a
            look-up such as "king is 47", two tokens are between the word and the number.
    """

    model: ModelConfig = field(default_factory=lambda: GPT_OSS_NANO)
    mix: str = "broad"
    seed: int = 0
    steps: int = 3600
    tokens: int = 9000
    learning_rate: float = 5e-3
    adam_rate: float = 3e-3
    warm_up: int = 50
    weight_decay: float = 0.05
    balance: float = 0.02
    rounded: float = 0.15
    look_back: int = 3


def learning_rate_scale(recipe: Recipe, step: int) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine down to 2%."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def balance_weight(recipe: Recipe, step: int) -> float:
    """The weight of the load-balancing loss, which falls to a tenth."""
    return recipe.balance * (1 - 0.9 * step / recipe.steps)


def is_rounded(recipe: Recipe, step: int) -> bool:
    """Whether this step trains with MXFP4 rounding."""
    return step >= recipe.steps * (1 - recipe.rounded)


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `recipe.json`; LabError if the folder has another recipe or a run without one."""
    file, text = folder / RECIPE, json.dumps(asdict(recipe), indent=2) + "\n"
    if not file.exists() and ((folder / STATE).exists() or has_steps(folder / LOG)):
        raise LabError(f"{folder} holds a run without its {RECIPE}; choose another folder")
    if file.exists() and file.read_text() != text:
        raise LabError(
            f"{folder} holds a run of another recipe; choose another folder, or the options that"
            f" {file} records"
        )
    file.write_text(text)


def read_recipe(file: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        LabError: there is no such file, or it is not a recipe of this version.
    """
    recipe = parse_fields(Recipe, read_text(file), str(file))
    model = recipe["model"]
    model["layer_types"] = tuple(model["layer_types"])
    recipe["model"] = ModelConfig(**model)
    return Recipe(**recipe)
