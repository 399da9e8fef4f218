"""The memory and the work of a fine-tuning run, computed before anything large is loaded.

Left out: Python and its packages (0.3 GB), the kernels that they compile at run time (0.3 GB on a
CPU), and the few rows that kernels dequantize at a time.
"""

import time
from dataclasses import dataclass, fields

import torch

from oss_lab.checkpoint.layouts import ExpertStorage
from oss_lab.checkpoint.plan import (
    DTYPE_BYTES,
    EXPERT_CACHE_BYTES,
    SMALL,
    count_parameters,
    is_small,
    plan_memory,
)
from oss_lab.config import ModelConfig
from oss_lab.finetune.activations import kept_bytes, working_bytes
from oss_lab.finetune.lora import count_trained
from oss_lab.finetune.recipe import Recipe

GPUS = (16, 24)  # GB of memory that a consumer's GPU has


@dataclass(frozen=True)
class FinetunePlan:
    """Bytes in use at the peak of a step.

    Attributes:
        weights: everything but the experts' matrices, frozen, in the recipe's dtype.
        experts: the frozen experts, as the checkpoint stores them.
        dequantized: dense copies of packed experts; of large models, one matrix at a time.
        lora, gradients, optimizer: two gradients and two moments for each number that is trained.
        kept: activations from the forward to the backward pass.
        working: the most that one layer, or a piece of the loss, needs besides.
    """

    weights: int
    experts: int
    dequantized: int
    lora: int
    gradients: int
    optimizer: int
    kept: int
    working: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def sentence(self) -> str:
        """The plan in one line."""
        names = {
            "frozen weights": self.weights + self.experts,
            "dequantized experts": self.dequantized,
            "LoRA": self.lora,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.kept + self.working,
        }
        parts = ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in names.items())
        return f"{self.total / 2**20:,.0f} MiB: {parts}"

    def compare(self, size: int, what: str) -> str:
        """Whether the plan fits into `size` bytes, as a sentence about `what`."""
        if self.total <= size:
            return f"fits on {what}"
        more = (self.total - size) / 1e9
        return f"does not fit on {what}: {more:,.1f} GB more are needed"


def plan_finetuning(
    config: ModelConfig, recipe: Recipe, storage: ExpertStorage = "mxfp4"
) -> FinetunePlan:
    """Plan the memory of a step.

    Args:
        storage: how the checkpoint stores its experts.
    """
    base = plan_memory(config, dtype=recipe.dtype, storage=storage)
    trained = count_trained(config, recipe)
    is_dequantized = storage == "mxfp4" and recipe.kernels == "reference"
    return FinetunePlan(
        weights=base.weights,
        experts=base.packed_experts + base.dense_experts,
        dequantized=_dequantized_bytes(config, recipe) if is_dequantized else 0,
        lora=4 * trained,
        gradients=8 * trained,  # the sum, and those of the rows being added
        optimizer=8 * trained,
        kept=kept_bytes(config, recipe),
        working=working_bytes(config, recipe),
    )


def expert_budget(config: ModelConfig) -> int:
    """How many bytes of dequantized experts to keep: all of a small model's, else none."""
    return EXPERT_CACHE_BYTES if is_small(config) else 0


def _dequantized_bytes(config: ModelConfig, recipe: Recipe) -> int:
    if is_small(config):
        return plan_memory(config, dtype=recipe.dtype).expert_cache
    matrix = 2 * config.intermediate_size * config.hidden_size
    return 3 * matrix * DTYPE_BYTES[recipe.dtype]  # its lookups, products and result


def count_operations(config: ModelConfig, recipe: Recipe) -> float:
    """Floating-point operations of one step: forward, backward, and the layers computed again.

    The backward pass has a product for each of the forward pass: the gradient of the input. Frozen
    matrices need none for themselves.
    """
    tokens = recipe.batch * recipe.length
    passes = 3 if recipe.recompute else 2
    products = 2 * count_parameters(config).active * tokens * passes
    scores = 4 * config.num_attention_heads * config.head_dim * recipe.length * tokens
    return products + scores * config.num_hidden_layers * (passes + 1)


def measure_speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Operations per second that a matrix product reaches on this device now."""
    size = 1024
    left = torch.ones(size, size, dtype=dtype, device=device)
    count, began = 0, time.perf_counter()
    while not count or time.perf_counter() - began < seconds:
        (left @ left)[0, 0].item()
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - began)


def describe_plan(
    plan: FinetunePlan, config: ModelConfig, recipe: Recipe, device: torch.device, free: int | None
) -> list[str]:
    """The plan in sentences: memory, whether it fits, and the least time of a step."""
    lines = [f"memory at the peak: {plan.sentence}"]
    if free is not None:
        lines.append(f"{plan.compare(free, str(device))} ({free / 2**30:,.1f} GiB are free)")
    if plan.total > SMALL:
        lines += [plan.compare(gpu * 10**9, f"a GPU of {gpu} GB") for gpu in GPUS]
    speed = measure_speed(device, getattr(torch, recipe.dtype))
    work = count_operations(config, recipe)
    lines.append(
        f"a step of {recipe.batch} rows of {recipe.length:,} tokens takes {work / 1e12:,.2f} TFLOP,"
        f" so at least {work / speed:,.1f} s at the {speed / 1e9:,.0f} GFLOP/s measured on {device}"
    )
    return lines
