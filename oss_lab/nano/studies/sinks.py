"""Are the sinks used? The same weights with sinks taken out.

`all removed` takes every sink out, `layer n removed` those of one layer: each head then spends all
its attention on tokens. Two controls tell apart what is lost with them. `shifted` adds SHIFT to the
logits of half a layer's sinks, drawn at random, and takes it from the others: a disturbance that
moves attention to tokens and away from them alike. `gain kept`
removes all sinks, and multiplies each head by the mean share that its sink left to tokens, measured
on other problems: what is then missing is only that the share depends on the token.

Accuracy is of greedy replies at high effort. Besides, the right replies to the first READ problems
are read (teacher forcing), and every prediction of their tokens is held against the unchanged
model's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.analysis.statistics.paired import paired_interval
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.harmony import render
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.interventions import Intervention, RemoveSink, ScaleHead, ShiftSink
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import drawn, marks
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.free_text import OutOfReach
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.problem import Task
from oss_lab.nano.tasks.sums_and_products import Products, Sums

TASKS: dict[str, Task] = {
    "product 3x2 digits": Products(lengths=(3, 2)),
    "difference, 3 digits": Sums(terms=2, digits=3, signs="-"),
    "look-up beyond the window": Lookup(pairs=(4, 8), filler=(40, 60), asked=1),
    "out of reach": OutOfReach(),
}
EFFORT: Effort = "high"
SHIFT = math.log(2)  # nats: a sink weighs twice as much, or half as much, beside the tokens
GAIN_PROBLEMS = 20  # of each task, for the mean shares
READ = 100
AT_ONCE = 25  # replies read in one batch


@dataclass(frozen=True)
class Removal:
    """One change of the sinks on one task.

    Attributes:
        change: `all removed`, `layer n removed`, `shifted` or `gain kept`.
        accuracy: first the changed model, second the unchanged one, on the same problems.
        interval: of the difference of the two accuracies; see `paired_interval`.
        read: problems whose right reply was read, for all that follows.
        logprob: of the right reply under the changed model, in thousandths of a nat a token.
        logprob_change: that minus the unchanged model's.
        divergence: of the changed predictions from the unchanged, in thousandths of a nat a token.
    """

    task: str
    change: str
    effort: Effort
    seed: int
    accuracy: Paired
    interval: tuple[float, float]
    read: int
    logprob: Mean
    logprob_change: Mean
    divergence: Mean


@dataclass(frozen=True)
class Read:
    """A right reply as the model reads it.

    Attributes:
        logprobs: of every next token, behind the token before each of the reply's.
        said: log-probability of the reply's own.
    """

    logprobs: Float[Tensor, "reply vocab"]
    said: Float[Tensor, "reply"]


def measure(lab: Lab, n: int, seed: int) -> list[Removal]:
    """n held-out problems of each task under every change."""
    made = changes(lab, seed)
    found: list[Removal] = []
    with tqdm(total=len(TASKS) * (1 + len(made)), desc="sinks", disable=None) as progress:
        for name, task in TASKS.items():
            problems = drawn(task, n, Random(f"{seed}/sinks/{name}"))
            right, plain = marks(lab, problems, EFFORT), read(lab, problems[:READ])
            progress.update()
            for change, interventions in made.items():
                with lab.intervene(*interventions):
                    still, changed = marks(lab, problems, EFFORT), read(lab, problems[:READ])
                accuracy = Paired.of(still, right)
                compared = estimates(changed, plain, seed)
                interval = paired_interval(accuracy)
                found.append(
                    Removal(name, change, EFFORT, seed, accuracy, interval, len(plain), *compared)
                )
                progress.update()
    return found


def changes(lab: Lab, seed: int) -> dict[str, list[Intervention]]:
    """What is done to the sinks, by name."""
    layers, heads = range(lab.config.num_hidden_layers), range(lab.config.num_attention_heads)
    rng = Random(f"{seed}/sinks/shifted")
    gone: Intervention = RemoveSink(layer="all", head="all")
    shifted: list[Intervention] = []
    for layer in layers:
        shifts = [SHIFT if head % 2 else -SHIFT for head in heads]
        rng.shuffle(shifts)
        shifted += [ShiftSink(layer=layer, head=head, by=shifts[head]) for head in heads]
    left = shares_left(lab, Random(f"{seed}/sinks/gain"))
    gain: list[Intervention] = [
        ScaleHead(layer=layer, head=head, by=float(left[layer, head]))
        for layer in layers
        for head in heads
    ]
    alone: dict[str, list[Intervention]] = {
        f"layer {layer} removed": [RemoveSink(layer=layer, head="all")] for layer in layers
    }
    return {"all removed": [gone], **alone, "shifted": shifted, "gain kept": [gone, *gain]}


def shares_left(lab: Lab, rng: Random) -> Float[ndarray, "layer head"]:
    """The share of attention that each head's sink leaves to tokens, mean over all tokens."""
    left: list[ndarray] = []
    for task in TASKS.values():
        for problem in drawn(task, GAIN_PROBLEMS, rng):
            tokens = render(problem.conversation(EFFORT), lab.tokenizer, mode="training").tokens
            left.append(1 - lab.trace(tokens, ["attn.sink_mass"])["attn.sink_mass"].values)
    return np.concatenate(left, axis=1).mean(1)


@torch.inference_mode()
def read(lab: Lab, problems: Sequence[Problem]) -> list[Read]:
    """The right reply to each problem, read in batches padded at the left."""
    found: list[Read] = []
    for start in range(0, len(problems), AT_ONCE):
        rendered = [
            render(problem.conversation(EFFORT), lab.tokenizer, mode="training")
            for problem in problems[start : start + AT_ONCE]
        ]
        for row, each in zip(
            lab.logits_batch([each.tokens for each in rendered]), rendered, strict=True
        ):
            ids = torch.tensor(each.tokens)
            written = torch.tensor(each.loss_mask)[1:]
            logprobs = row[:-1].cpu()[written].log_softmax(-1)
            said = logprobs.gather(1, ids[1:][written][:, None])[:, 0]
            found.append(Read(logprobs, said))
    return found


def estimates(changed: Sequence[Read], plain: Sequence[Read], seed: int) -> tuple[Mean, Mean, Mean]:
    """Log-probability of the replies, its change, and the divergence: means of each reply first."""
    said, before = (
        1000 * np.array([float(each.said.double().mean()) for each in of])
        for of in (changed, plain)
    )
    divergence = 1000 * np.array(
        [
            float((p.logprobs.double().exp() * (p.logprobs - q.logprobs)).sum(-1).mean())
            for p, q in zip(plain, changed, strict=True)
        ]
    )
    return (
        Mean.of(said, seed),
        Mean.of(said - before, seed),
        Mean.of(divergence, seed),
    )
