"""A model with low-rank parts has the same logits and gradients on each backend."""

from typing import Any

import pytest
import torch
from oss_kernels.backends import load_backend
from torch import Tensor

from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.attention import find_first_visible
from oss_lab.finetune.examples import Example
from oss_lab.finetune.lora import Lora, make_lora
from oss_lab.finetune.packing import PackedBatch, PackedRows, collate
from oss_lab.finetune.recipe import make_recipe
from oss_lab.model import Transformer
from oss_lab.model.transformer import make_mask


@pytest.fixture
def lora(tiny_model: Transformer, rng: torch.Generator, device: str) -> Lora:
    """Parts whose `up` is random too."""
    lora = make_lora(tiny_model.config, make_recipe(tiny_model.config, targets="all"))
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.05, generator=rng)
    return lora.to(device)


@pytest.fixture
def batch(rng: torch.Generator, device: str) -> PackedBatch:
    """Two rows: two examples with padding, and one that is longer than the window."""

    def draw(length: int) -> Example:
        return Example(torch.randint(0, 70, (length,), generator=rng).tolist(), [True] * length)

    return collate([[draw(7), draw(3)], [draw(14)]]).to(torch.device(device))


def run(model: Transformer, lora: Lora, batch: PackedBatch, backend: Any) -> list[Tensor]:
    """The logits of the examples, and the gradient of each factor."""
    kernels = None if backend == "reference modules" else load_backend(backend)
    adapted = AdaptedTransformer(model, lora, kernels=kernels)
    logits = adapted(batch.inputs, PackedRows(batch))[batch.weights > 0]
    loss = torch.nn.functional.cross_entropy(logits, batch.targets[batch.weights > 0])
    return [logits.detach(), *torch.autograd.grad(loss, list(lora.parameters()))]


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
def test_logits_and_gradients_are_those_of_the_reference_modules(
    tiny_model, lora, batch, backend, device
) -> None:
    if backend == "cpu" and device != "cpu":
        pytest.skip("the kernels for processors need tensors on a CPU")
    expected = run(tiny_model, lora, batch, "reference modules")
    actual = run(tiny_model, lora, batch, backend)
    for ours, its in zip(actual, expected, strict=True):
        assert (ours - its).norm() <= 1e-4 * its.norm() + 1e-7


@pytest.mark.parametrize("window", [None, 5])
def test_the_first_visible_key_is_that_of_the_mask(batch, window) -> None:
    past = PackedRows(batch)
    visible = make_mask(batch.positions, 13, window, samples=past.samples)[:, 0]
    first = find_first_visible(visible)
    key = torch.arange(13, device=first.device)
    assert torch.equal((key >= first[..., None]) & (key <= key[:, None]), visible)
