"""The memory plan: activations against what autograd saves, and the rest against the tensors."""

import platform
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.finetune import heap
from oss_lab.finetune.activations import kept_bytes
from oss_lab.finetune.examples import Example
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.packing import PackedRows, collate
from oss_lab.finetune.plan import count_operations, describe_plan, measure_speed, plan_finetuning
from oss_lab.finetune.recipe import make_recipe
from oss_lab.finetune.steps import Trainee, differentiate

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def saved_bytes(trainee: Trainee, rows: list[list[Example]]) -> int:
    """Bytes that autograd keeps during the body's forward pass, without weights."""
    own = {
        each.untyped_storage().data_ptr()
        for each in [*trainee.body.parameters(), *trainee.body.buffers()]
    }
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor  # alive, so no other tensor gets its address
        return tensor

    batch = collate(rows)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainee.body(batch.inputs, PackedRows(batch))
    return sum(each.untyped_storage().nbytes() for each in kept.values())


@pytest.mark.parametrize("targets", ["all", "attention", ("q_proj", "down_proj")], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_activations_are_what_autograd_saves(
    write_tiny, tiny_config, kernels, dtype, targets
) -> None:
    config = replace(
        tiny_config, hidden_size=192, intermediate_size=320, num_hidden_layers=3, layer_types=()
    )
    model = load_model(open_checkpoint(write_tiny(config=config)), dtype=DTYPES[dtype])
    recipe = make_recipe(
        config, dtype=dtype, targets=targets, length=96, rows=2, recompute=False, rank=2,
        kernels=kernels,
    )  # fmt: skip
    trainee = Trainee(model, make_lora(config, recipe), recipe)
    rows = [[Example([*range(96), 0], [True] * 97)]] * 2
    planned, saved = kept_bytes(config, recipe), saved_bytes(trainee, rows)
    assert planned == pytest.approx(saved, rel=0.02)


def test_recomputing_keeps_the_inputs_of_the_layers(nano) -> None:
    recipe = make_recipe(GPT_OSS_NANO, length=64, rows=2, recompute=True)
    trainee = Trainee(nano.model, make_lora(GPT_OSS_NANO, recipe), recipe)
    rows = [[Example(list(range(65)), [True] * 65)]] * 2
    shared = 2 * 64 * 4 * 66  # masks and rotations, which all layers share
    assert saved_bytes(trainee, rows) - kept_bytes(GPT_OSS_NANO, recipe) < shared


def test_trained_numbers_and_weights_are_counted_to_the_byte(nano) -> None:
    recipe = make_recipe(GPT_OSS_NANO, targets="all")
    trainee = Trainee(nano.model, make_lora(GPT_OSS_NANO, recipe), recipe)
    plan = plan_finetuning(GPT_OSS_NANO, recipe)
    assert plan.lora == sum(each.nbytes for each in trainee.parameters)
    rows = [[Example(list(range(33)), [True] * 33)]]
    _, gradients = differentiate(trainee, rows)
    assert plan.gradients == 2 * sum(each.nbytes for each in gradients)
    for parameter, gradient in zip(trainee.parameters, gradients, strict=True):
        parameter.grad = gradient
    trainee.optimizer.step()
    moments = [v for state in trainee.optimizer.state.values() for v in state.values() if v.dim()]
    assert plan.optimizer == sum(each.nbytes for each in moments)
    assert plan.weights == sum(each.nbytes for each in nano.model.parameters())
    assert plan.experts == sum(each.nbytes for each in nano.model.buffers())


def test_20b_on_two_gpus() -> None:
    """Attention alone fits on 16 GB; everything fits on 24 GB."""
    small = plan_finetuning(GPT_OSS_20B, make_recipe(GPT_OSS_20B, targets="attention", length=512))
    assert small.compare(16 * 10**9, "a GPU of 16 GB") == "fits on a GPU of 16 GB"
    recipe = make_recipe(GPT_OSS_20B, targets="all", rank=32)
    large = plan_finetuning(GPT_OSS_20B, recipe)
    assert "does not fit on a GPU of 16 GB: " in large.compare(16 * 10**9, "a GPU of 16 GB")
    lines = describe_plan(large, GPT_OSS_20B, recipe, CPU, free=8 * 2**30)
    assert lines[0].startswith(f"memory at the peak: {large.total / 2**20:,.0f} MiB: frozen")
    assert lines[1].startswith("does not fit on cpu: ")
    assert lines[1].endswith("(8.0 GiB are free)")
    assert " on a GPU of 16 GB" in lines[2]
    assert " on a GPU of 24 GB" in lines[3]
    assert "a step of 8 rows of 1,024 tokens takes" in lines[4]


def test_operations_are_those_of_the_active_parameters() -> None:
    """Six per active parameter and token; with short rows, attention scores add little."""
    recipe = make_recipe(GPT_OSS_20B, length=16, batch=1)
    assert count_operations(GPT_OSS_20B, recipe) / (6 * 16 * 3.6e9) == pytest.approx(1, rel=0.01)
    again = replace(recipe, recompute=False)
    ratio = count_operations(GPT_OSS_20B, recipe) / count_operations(GPT_OSS_20B, again)
    assert ratio == pytest.approx(1.5, rel=0.01)


def test_the_speed_of_a_product_is_measured() -> None:
    assert 1e8 < measure_speed(CPU, torch.float32, seconds=0.01) < 1e14


BLOCKS = """
import runpy, sys
if sys.argv[1] == "yes":
    runpy.run_path(sys.argv[2])["return_large_blocks"]()
del sys.argv
once = bytearray(b"x" * (20 << 20))
del once  # from here on, glibc keeps blocks of this size in its heap
blocks = [bytearray(b"x" * (20 << 20)) for _ in range(8)]
last = bytearray(b"x" * (20 << 20))  # above them
del blocks
line = next(each for each in open("/proc/self/status") if each.startswith("VmRSS"))
print(int(line.split()[1]) >> 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_freed_blocks_are_given_back() -> None:
    def count_mebibytes(option: str) -> int:
        command = [sys.executable, "-I", "-S", "-c", BLOCKS, option, heap.__file__]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert count_mebibytes("no") - count_mebibytes("yes") > 100
