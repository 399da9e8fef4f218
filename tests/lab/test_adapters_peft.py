"""Adapters made with PEFT on nano: our merge gives PEFT's weights and its logits."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import oss_lab
from oss_lab.checkpoint.adapter import read_adapter
from oss_lab.checkpoint.adapter_config import USED, WITHOUT_EFFECT
from oss_lab.checkpoint.merge import merge_adapter
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.values import read_values
from oss_lab.cli.main import main
from oss_lab.proof.transformers_model import load_folder

peft = pytest.importorskip("peft", reason="peft is not installed (the extra `test` holds it)")

EXPERT_TARGETS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.router.weight"]
PEFT_CASES: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "patterns": {
        "target_modules": ["q_proj", "o_proj"],
        "use_rslora": True,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {"o_proj": 5},
        "bias": "lora_only",
        "lora_bias": True,
    },
    "experts": {"target_modules": [], "target_parameters": EXPERT_TARGETS},
    "whole": {
        "target_modules": ["q_proj", "embed_tokens"],
        "modules_to_save": ["lm_head", "input_layernorm"],
    },
}


@pytest.fixture(scope="module")
def nano_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "nano"
    assert main(["convert", "nano", "--to", "huggingface", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def train(nano_folder, tmp_path):
    """`train("attention")`: PEFT's model with random factors, saved in a folder."""

    def make(case: str, exchanged: bool = False) -> tuple[Any, Path]:
        model = load_folder(nano_folder, torch.float32)
        for layer in model.model.layers if exchanged else ():
            layer.mlp.experts.is_transposed = False  # as if transformers 4 had made it
        settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **PEFT_CASES[case])
        adapted = peft.get_peft_model(model, settings)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
            elif "modules_to_save" in name:
                parameter.data *= 1.1
        folder = tmp_path / case
        adapted.save_pretrained(folder)
        return adapted, folder

    return make


def merged_parameters(base, folder: Path) -> Iterable[tuple[str, Tensor]]:
    """The merged values as transformers' parameters: experts stacked and transposed."""
    stacks: dict[str, list[Tensor]] = {}
    adapter = read_adapter(folder, base.config, "nano")
    for value in merge_adapter(read_values(base), adapter, {}):
        if value.expert is None:
            yield value.name, value.tensor.float()
        else:
            stacks.setdefault(value.name, []).append(value.tensor.float().T)
    for name, stack in stacks.items():
        yield name, torch.stack(stack)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", PEFT_CASES)
def test_the_merge_equals_pefts(train, case) -> None:
    adapted, folder = train(case)
    base = open_checkpoint("nano")
    ids = torch.randint(0, 600, (1, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        unmerged = adapted(ids).logits
    theirs = adapted.merge_and_unload()
    parameters = dict(theirs.named_parameters())
    for name, ours in merged_parameters(base, folder):
        torch.testing.assert_close(ours, parameters.pop(name), rtol=0, atol=1e-6)
    assert not parameters
    with torch.no_grad():  # the weights are PEFT's, so only the order of operations differs
        torch.testing.assert_close(theirs(ids).logits, unmerged, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exchanged_experts_equal_pefts(train) -> None:
    adapted, folder = train("experts", exchanged=True)
    parameters = dict(adapted.merge_and_unload().named_parameters())
    for name, ours in merged_parameters(open_checkpoint("nano"), folder):
        torch.testing.assert_close(ours, parameters[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", ["attention", "experts"])
def test_our_merged_model_has_pefts_logits(train, case, tmp_path) -> None:
    """Both have their weights rounded to BF16, so only the order of operations differs."""
    adapted, folder = train(case)
    out = tmp_path / "merged"
    arguments = ["--to", "huggingface", "--experts", "bf16", "--adapter", str(folder)]
    assert main(["convert", "nano", *arguments, "--out", str(out)]) == 0
    lab = oss_lab.load(out, verbose=False)
    theirs = adapted.merge_and_unload()
    for parameter in theirs.parameters():
        parameter.data = parameter.data.bfloat16().float()
    ids = torch.randint(0, 600, (64,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0]
    actual = lab.logits(ids.tolist())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    plain = oss_lab.load("nano", verbose=False).logits(ids.tolist())
    assert (actual - plain).abs().max() > 0.1


def test_the_configuration_is_pefts_own() -> None:
    """Every field of PEFT's LoraConfig at its default is accepted."""
    fields = cast(Any, peft.LoraConfig(target_modules=["q_proj"])).to_dict()
    assert {name for name, value in fields.items() if value} <= {*USED, *WITHOUT_EFFECT}
