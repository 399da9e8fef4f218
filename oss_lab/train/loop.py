"""The training loop: AdamW with warm-up and cosine, a balance loss that fades, MXFP4 at the end.

The run is fixed by its `Recipe`: batch and weights follow from the seed, so that the same versions
on the same machine give the same losses, and a run goes on from its last checkpoint as if it had
not stopped. What each step did is a line of `log.jsonl`.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oss_lab.config import GPT_OSS_NANO, ModelConfig
from oss_lab.errors import LabError
from oss_lab.model import Tap, Transformer
from oss_lab.tokenizer import load_vocabulary
from oss_lab.train.data import Batch, batch_at
from oss_lab.train.quantised import RoundedExperts
from oss_lab.train.state import load_state, load_weights, save_state

STATE = "state.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights.

    Attributes:
        tokens: tokens per step, padding included; micro_tokens of them at a time.
        balance: weight of the balance loss at the start; it fades linearly to a tenth.
        rounded: the share of the steps, at the end, that trains through MXFP4 rounding.
    """

    model: ModelConfig = field(default_factory=lambda: GPT_OSS_NANO)
    seed: int = 0
    steps: int = 2000
    tokens: int = 8192
    micro_tokens: int = 3300
    learning_rate: float = 3e-3
    warm_up: int = 50
    weight_decay: float = 0.05
    balance: float = 0.02
    rounded: float = 0.15


@dataclass(frozen=True)
class Step:
    """One line of the log. Losses are in nats per learnt token; `load` is the busiest expert's
    share of the slots over an even share, averaged over the layers (1 = perfectly even)."""

    step: int
    effort: str
    loss: float
    balance: float
    load: float
    learnt_tokens: int
    gradient_norm: float
    seconds: float


class RouterWatch:
    """Taps that keep router logits and choices, with gradient, for the balance loss."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self.ids: list[Tensor] = []

    def __call__(self, layer: int | None) -> Tap:
        def keep(name: str, x: Tensor) -> Tensor:
            if name == "moe.router_logits":
                self.logits.append(x)
            elif name == "moe.expert_ids":
                self.ids.append(x)
            return x

        return keep

    def balance(self) -> tuple[Tensor, float]:
        """The Switch Transformer's loss (arXiv 2101.03961, eq. 4) and the busiest expert's load."""
        losses, loads = [], []
        for logits, ids in zip(self.logits, self.ids, strict=True):
            experts = logits.shape[-1]
            share = torch.bincount(ids.flatten(), minlength=experts) / ids.numel()
            probability = logits.softmax(-1).mean((0, 1))
            losses.append(experts * (share * probability).sum())
            loads.append(share.max().item() * experts)
        return torch.stack(losses).mean(), sum(loads) / len(loads)


def initialise(model: Transformer, seed: int) -> None:
    """Normal matrices of 1/sqrt(inputs), smaller with depth where they write to the residual;
    norm scales one, biases and sinks zero."""
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.scale"):
            continue
        if parameter.dim() < 2 or name.endswith("_bias"):
            nn.init.zeros_(parameter)
            continue
        std = 0.5 if name == "embedding.weight" else parameter.shape[-1] ** -0.5
        if "attn.out" in name or "mlp2_weight" in name:
            std /= depth
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def train(
    recipe: Recipe, folder: Path, device: torch.device | str = "cpu", *, save_every: int = 100
) -> Iterator[Step]:
    """Train, or go on training, in `folder`; yields each step. For the model see `trained`.

    `folder` gets `recipe.json`, `log.jsonl` and, every `save_every` steps, `state.safetensors`.

    Raises:
        LabError: the folder holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, folder)
    encoding = load_vocabulary("nano")
    model = Transformer(recipe.model, RoundedExperts)
    initialise(model, recipe.seed)
    model.to(device)
    optimizer = make_optimizer(model, recipe)
    state, log = folder / STATE, folder / "log.jsonl"
    first = load_state(state, model, optimizer) if state.exists() else 0
    lines = log.read_text().splitlines()[:first] if first else []
    log.write_text("".join(line + "\n" for line in lines))
    for step in range(first, recipe.steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        if step >= recipe.steps * (1 - recipe.rounded):
            round_experts(model)
        batch = batch_at(step, recipe.seed, recipe.tokens, encoding)
        fade = recipe.balance * (1 - 0.9 * step / recipe.steps)
        measured = train_step(model, optimizer, batch, recipe.micro_tokens, fade)
        done = Step(step, batch.effort, *measured, seconds=round(time.perf_counter() - began, 3))
        with log.open("a") as appended:
            appended.write(json.dumps(asdict(done)) + "\n")
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            save_state(state, model, optimizer, step + 1)
        yield done


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `recipe.json`; refuse a folder with a state that another recipe made."""
    file, text = folder / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n"
    if (folder / STATE).exists() and not (file.exists() and file.read_text() == text):
        raise LabError(
            f"{folder} holds a run of another recipe; choose another folder, or the options that"
            f" {file} records."
        )
    file.write_text(text)


def trained(recipe: Recipe, folder: Path) -> Transformer:
    """The model as last saved in `folder`, on the CPU."""
    model = Transformer(recipe.model, RoundedExperts)
    load_weights(folder / STATE, model)
    return model.eval()


def make_optimizer(model: Transformer, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, sinks) do not decay."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def train_step(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    micro_tokens: int,
    balance_weight: float,
) -> tuple[float, float, float, int, float]:
    """One update; returns (loss, balance, load, learnt tokens, gradient norm)."""
    learnt = int(batch.learnt.sum())
    rows = max(1, micro_tokens // batch.inputs.shape[1])
    parts = range(0, len(batch.inputs), rows)
    loss, balance, load = 0.0, 0.0, 0.0
    for start in parts:
        part = slice(start, start + rows)
        inputs, targets, mask = (
            each[part].to(model.device) for each in (batch.inputs, batch.targets, batch.learnt)
        )
        watch = RouterWatch()
        logits = model(inputs, taps=watch)
        nats = F.cross_entropy(logits[mask].float(), targets[mask], reduction="sum") / learnt
        even, busiest = watch.balance()
        (nats + balance_weight * even / len(parts)).backward()
        loss += nats.item()
        balance += even.item() / len(parts)
        load += busiest / len(parts)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    optimizer.step()
    optimizer.zero_grad()
    return loss, balance, load, learnt, norm


def round_experts(model: Transformer) -> None:
    """From now on the forward sees every expert as MXFP4 would store it now."""
    for module in model.modules():
        if isinstance(module, RoundedExperts):
            module.round()
