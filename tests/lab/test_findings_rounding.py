"""The model before its experts were rounded, rebuilt from the state and recipe of its training
run.
"""

import pytest
import torch

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.model import Transformer
from oss_lab.nano.studies import rounding
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.recipe import RECIPE, STATE, Recipe, read_recipe, write_recipe
from oss_lab.nano.training.state import save_state


def test_in_bf16_everything_but_the_experts_equals_the_checkpoint(untrained, untrained_run):
    exact = rounding.load_in_bf16(untrained, untrained_run)
    packed, ours = dict(untrained.model.named_parameters()), dict(exact.model.named_parameters())
    assert packed
    assert all(torch.equal(packed[name], ours[name]) for name in packed)
    experts = ours["block.0.mlp.mlp1_weight.dense.0"]
    assert torch.equal(experts, experts.bfloat16().float())
    assert not torch.equal(
        experts, next(iter(untrained.model.block[0].mlp.mlp1_weight.matrices([0], torch.float32)))
    )


def test_the_checkpoint_of_another_run_is_refused(untrained, tmp_path):
    write_recipe(Recipe(model=untrained.config, steps=0), tmp_path)
    torch.manual_seed(1)
    other = Transformer(untrained.config, RoundedExperts)
    save_state(tmp_path / STATE, other, [], {}, 0)
    with pytest.raises(LabError, match="export it again"):
        rounding.load_in_bf16(untrained, tmp_path)


def test_a_recipe_is_read_back(untrained, untrained_run):
    recipe = read_recipe(untrained_run / RECIPE)
    assert recipe == Recipe(model=untrained.config, steps=0)
    assert isinstance(recipe.model, ModelConfig)
