"""Are the attention sinks used? The same weights with sinks removed.

`all removed` removes every sink, `layer n removed` those of one layer: each head then spends all
its attention on tokens. Two controls separate the possible effects. `shifted` adds SHIFT to the
logits of a random half of each layer's sinks and subtracts it from the others. This moves as much
attention toward tokens as away from them. `gain kept` removes all sinks and multiplies each head by
the mean share that its sink left to tokens, measured on other problems. Only the dependence of that
share on the token is lost.

Accuracy is that of greedy replies at high effort. The model also reads the right replies to the
first READ problems (teacher forcing). Its prediction for every token is compared with that of the
unchanged model.
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
from oss_lab.nano.studies.problems import draw_problems, grade_problems
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
SHIFT = math.log(2)  # nats: a sink gets twice or half the weight relative to the tokens
GAIN_PROBLEMS = 20  # of each task, for the mean shares
READ = 100
AT_ONCE = 25  # replies read in one batch


@dataclass(frozen=True)
class Removal:
    """One change of the sinks on one task.

    Attributes:
        change: `all removed`, `layer n removed`, `shifted` or `gain kept`.
        accuracy: first of the changed, then of the unchanged model, on the same problems.
        interval: of the difference between the two accuracies; see `paired_interval`.
        read: the number of problems whose right reply was read, for the fields below.
        logprob: of the right reply under the changed model, in thousandths of a nat per token.
        logprob_change: `logprob` minus that of the unchanged model.
        divergence: of the changed from the unchanged predictions, in thousandths of a nat per
            token.
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
class ReadReply:
    """The model's predictions while it reads a right reply.

    Attributes:
        logprobs: of every vocabulary token, at each position of the reply.
        said: of the reply's token at each position.
    """

    logprobs: Float[Tensor, "reply vocab"]
    said: Float[Tensor, "reply"]


def study_sinks(lab: Lab, n: int, seed: int) -> list[Removal]:
    """Ask n held-out problems of each task under every change."""
    made = build_changes(lab, seed)
    found: list[Removal] = []
    with tqdm(total=len(TASKS) * (1 + len(made)), desc="sinks", disable=None) as progress:
        for name, task in TASKS.items():
            problems = draw_problems(task, n, Random(f"{seed}/sinks/{name}"))
            right, plain = grade_problems(lab, problems, EFFORT), read_replies(lab, problems[:READ])
            progress.update()
            for change, interventions in made.items():
                with lab.intervene(*interventions):
                    still, changed = (
                        grade_problems(lab, problems, EFFORT),
                        read_replies(lab, problems[:READ]),
                    )
                accuracy = Paired.of(still, right)
                compared = estimate_means(changed, plain, seed)
                interval = paired_interval(accuracy)
                found.append(
                    Removal(name, change, EFFORT, seed, accuracy, interval, len(plain), *compared)
                )
                progress.update()
    return found


def build_changes(lab: Lab, seed: int) -> dict[str, list[Intervention]]:
    """The changes of the sinks, by name."""
    layers, heads = range(lab.config.num_hidden_layers), range(lab.config.num_attention_heads)
    rng = Random(f"{seed}/sinks/shifted")
    gone: Intervention = RemoveSink(layer="all", head="all")
    shifted: list[Intervention] = []
    for layer in layers:
        shifts = [SHIFT if head % 2 else -SHIFT for head in heads]
        rng.shuffle(shifts)
        shifted += [ShiftSink(layer=layer, head=head, by=shifts[head]) for head in heads]
    left = measure_shares_left(lab, Random(f"{seed}/sinks/gain"))
    gain: list[Intervention] = [
        ScaleHead(layer=layer, head=head, by=float(left[layer, head]))
        for layer in layers
        for head in heads
    ]
    alone: dict[str, list[Intervention]] = {
        f"layer {layer} removed": [RemoveSink(layer=layer, head="all")] for layer in layers
    }
    return {"all removed": [gone], **alone, "shifted": shifted, "gain kept": [gone, *gain]}


def measure_shares_left(lab: Lab, rng: Random) -> Float[ndarray, "layer head"]:
    """The mean share of attention that each head's sink leaves to tokens."""
    left: list[ndarray] = []
    for task in TASKS.values():
        for problem in draw_problems(task, GAIN_PROBLEMS, rng):
            tokens = render(problem.conversation(EFFORT), lab.tokenizer, mode="training").tokens
            left.append(1 - lab.trace(tokens, ["attn.sink_mass"])["attn.sink_mass"].values)
    return np.concatenate(left, axis=1).mean(1)


@torch.inference_mode()
def read_replies(lab: Lab, problems: Sequence[Problem]) -> list[ReadReply]:
    """Predictions for the right reply to each problem, read in left-padded batches."""
    found: list[ReadReply] = []
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
            found.append(ReadReply(logprobs, said))
    return found


def estimate_means(
    changed: Sequence[ReadReply], plain: Sequence[ReadReply], seed: int
) -> tuple[Mean, Mean, Mean]:
    """Log-probability of the replies, its change, and the divergence, as means over replies."""
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
