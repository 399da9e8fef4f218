"""A fine-tuned model has the same logits with its adapter and merged, on each engine."""

import pytest
import torch

import oss_lab
from oss_lab.cli.main import main
from oss_lab.finetune import load_adapted
from oss_lab.finetune.files import write_adapter
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.recipe import make_recipe

IDS = torch.randint(0, 600, (300,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module")
def folders(finetune_base, tmp_path_factory):
    """The adapter, and the checkpoints it was merged into, with experts in bfloat16 and MXFP4."""
    config = oss_lab.load(finetune_base, verbose=False).config
    recipe = make_recipe(config, targets="all")
    lora = make_lora(config, recipe)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in lora.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    folders = [tmp_path_factory.mktemp("merged") / name for name in ("adapter", "bf16", "mxfp4")]
    folders[0].mkdir()
    write_adapter(folders[0], lora, recipe, str(finetune_base))
    command = ["convert", str(finetune_base), "--to", "huggingface", "--adapter", str(folders[0])]
    for merged in folders[1:]:
        assert main([*command, "--experts", merged.name, "--out", str(merged)]) == 0
    return folders


def test_merged_logits_differ_by_the_rounding_of_the_weights(folders, finetune_base) -> None:
    adapter, merged, _ = folders
    plain = oss_lab.load(finetune_base, verbose=False).logits(IDS)
    ours = load_adapted(str(finetune_base), adapter).logits(IDS)
    rounded = oss_lab.load(merged, dtype="float32", verbose=False).logits(IDS)
    assert (rounded - ours).norm() < 0.02 * ours.norm()  # bfloat16 has 8 bits
    assert (plain - ours).norm() > 0.1 * ours.norm()


def test_the_merged_model_has_the_same_logits_on_each_engine(folders) -> None:
    reference, cpu = (
        oss_lab.load(folders[2], dtype="float32", kernels=name, verbose=False)
        for name in ("reference", "cpu")
    )
    torch.testing.assert_close(cpu.logits(IDS), reference.logits(IDS), rtol=0, atol=1e-4)
