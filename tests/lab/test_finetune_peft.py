"""LoRA files: what is trained here loads in PEFT with the same logits, and the reverse."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import oss_lab
from oss_lab.checkpoint.adapter import read_adapter
from oss_lab.cli.main import main
from oss_lab.errors import CheckpointError
from oss_lab.finetune import load_adapted
from oss_lab.finetune.files import to_lora, write_adapter
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.recipe import make_recipe
from oss_lab.proof.transformers_model import load_folder

peft = pytest.importorskip("peft", reason="peft is not installed (the extra `test` holds it)")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
IDS = torch.randint(0, 600, (1, 40), generator=torch.Generator().manual_seed(1))
TARGETS = [("all",), ("down_proj",), ("gate_up_proj", "v_proj")]


@pytest.fixture(scope="module")
def folder(finetune_base, tmp_path_factory) -> Path:
    """The base model in the layout that transformers reads."""
    folder = tmp_path_factory.mktemp("base") / "base"
    assert main(["convert", str(finetune_base), "--to", "huggingface", "--out", str(folder)]) == 0
    return folder


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    return model(IDS).logits[0]


@pytest.mark.parametrize("targets", TARGETS, ids="-".join)
def test_peft_loads_what_is_trained_here(folder, tmp_path, targets) -> None:
    config = oss_lab.load(folder, verbose=False).config
    recipe = make_recipe(config, targets=targets, rank=3, alpha=5)
    lora = make_lora(config, recipe)
    for name, parameter in lora.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(2))
    write_adapter(tmp_path, lora, recipe, str(folder))
    theirs = peft.PeftModel.from_pretrained(load_folder(folder, torch.float32), tmp_path)
    ours = load_adapted(str(folder), tmp_path)
    actual = ours.logits(IDS[0].tolist())
    torch.testing.assert_close(actual, logits_of(theirs), rtol=0, atol=1e-4)
    plain = oss_lab.load(folder, verbose=False).logits(IDS[0].tolist())
    assert (actual - plain).abs().max() > 1e-2
    assert all(map(torch.equal, lora.state_dict().values(), read_state(tmp_path, config)))


def read_state(folder: Path, config) -> list[Tensor]:
    return list(to_lora(read_adapter(folder, config, "base"), config).state_dict().values())


PEFT = {
    "linear": {"target_modules": ["q_proj", "o_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["k_proj", "v_proj"],
        "rank_pattern": {"layers.1.self_attn.k_proj": 2},
        "alpha_pattern": {"v_proj": 5},
    },
    "experts": {
        "target_modules": [],
        "target_parameters": ["mlp.experts.down_proj", "mlp.experts.gate_up_proj", "router.weight"],
    },
}


@pytest.mark.parametrize("case", PEFT)
def test_what_peft_saved_has_the_same_logits_here(folder, tmp_path, case) -> None:
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **PEFT[case])
    theirs = peft.get_peft_model(load_folder(folder, torch.float32), settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(tmp_path)
    actual = load_adapted(str(folder), tmp_path).logits(IDS[0].tolist())
    torch.testing.assert_close(actual, logits_of(theirs), rtol=0, atol=1e-4)


def test_an_adapter_with_more_than_low_rank_parts_is_refused(folder, tmp_path) -> None:
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    peft.get_peft_model(load_folder(folder, torch.float32), settings).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"replaces lm_head\.weight or adds"):
        load_adapted(str(folder), tmp_path)


def test_first_values_have_pefts_range(folder) -> None:
    """PEFT draws from torch's generator, so only the distribution can be compared."""
    settings = peft.LoraConfig(
        r=4, target_modules=["q_proj"], target_parameters=["experts.down_proj"]
    )
    theirs = peft.get_peft_model(load_folder(folder, torch.float32), settings)
    config = oss_lab.load(folder, verbose=False).config
    ours = make_lora(config, make_recipe(config, targets=["q_proj", "down_proj"], rank=4))
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            assert not parameter.any()
        elif "lora_A" in name:
            part = ours.layers[0]["q_proj" if "q_proj" in name else "down_proj"]  # pyright: ignore
            assert parameter.std().item() == pytest.approx(part.down.std().item(), rel=0.2)


def test_the_configuration_names_the_published_model(finetune_base, tmp_path) -> None:
    config = oss_lab.load(finetune_base, verbose=False).config
    recipe = make_recipe(config)
    write_adapter(tmp_path, make_lora(config, recipe), recipe, "20b")
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == "openai/gpt-oss-20b"
