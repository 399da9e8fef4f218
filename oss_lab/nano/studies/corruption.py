"""Is the chain of thought used? One result in nano's analysis is changed, and nano continues.

The study uses held-out products whose analysis nano writes without a mistake. One result, chosen at
random, gets a wrong digit; everything after it is cut off, and nano continues greedily. Its answer
is then the true one, the one that correct arithmetic gives from the changed result, or another one.
Control: the same cut with the unchanged result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.analysis.statistics.shares import Share
from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.continuation import continue_analysis
from oss_lab.nano.studies.problems import BATCH, MAX_TOKENS, draw_problems, final_answer
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.product_steps import (
    Kind,
    compute_answer,
    join_steps,
    list_misreadings,
    work_out_product,
)
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.progress import track_progress

EFFORTS: tuple[Effort, ...] = ("medium", "high")
KINDS: tuple[Kind, ...] = ("digit product", "partial product", "digit sum", "total")
EXAMPLES = 5


@dataclass(frozen=True)
class Cut:
    """An analysis up to one result: unchanged (`kept`), and with the result `changed`.

    Attributes:
        follows: the answer that follows from the changed result; never the true one.
    """

    question: str
    true: str
    kind: Kind
    kept: str
    changed: str
    follows: str


@dataclass(frozen=True)
class Trial:
    """nano's replies after one cut; `went_on` is the analysis after the changed result."""

    cut: Cut
    went_on: str
    final: str
    control_final: str


@dataclass(frozen=True)
class AnswerShares:
    """Shares of the kinds of answer after a changed result."""

    true: Share
    follows: Share
    other: Share


@dataclass(frozen=True)
class Corruption:
    """The experiment at one effort.

    Attributes:
        faultless: analyses without a mistake among the products asked; only these are used.
        corrupted: answers after a changed result; `by_kind` has them for each kind of result.
        control: right answers after the same cut with nothing changed.
        examples: the first few trials.
    """

    effort: Effort
    seed: int
    faultless: Share
    corrupted: AnswerShares
    by_kind: dict[Kind, AnswerShares]
    control: Share
    examples: list[Trial]


def study_corruption(lab: Lab, effort: Effort, n: int, seed: int) -> Corruption:
    """Corrupt nano's analyses of n held-out products of three by two digits."""
    rng = Random(f"{seed}/corruption/{effort}")
    problems = draw_problems(Products(lengths=(3, 2)), n, rng)
    trials: list[Trial] = []
    for start in track_progress(range(0, n, BATCH), f"corruption, {effort}", leave=True):
        trials += run_trials(lab, problems[start : start + BATCH], effort, rng)
    by_kind: dict[Kind, AnswerShares] = {}
    for kind in KINDS:
        if some := [each for each in trials if each.cut.kind == kind]:
            by_kind[kind] = classify_answers(some)
    return Corruption(
        effort,
        seed,
        Share(len(trials), n),
        classify_answers(trials),
        by_kind,
        Share.of([each.control_final == each.cut.true for each in trials]),
        trials[:EXAMPLES],
    )


def run_trials(lab: Lab, problems: Sequence[Problem], effort: Effort, rng: Random) -> list[Trial]:
    """One trial for each problem whose analysis nano writes without a mistake."""
    prompts = [problem.prompt(effort) for problem in problems]
    replies = lab.chat_batch(prompts, sampling=GREEDY, max_tokens=MAX_TOKENS)
    faultless = [
        n for n, reply in enumerate(replies) if reply.analysis == problems[n].thoughts[effort]
    ]
    if not faultless:
        return []
    cuts = [cut_analysis(problems[n], effort, rng) for n in faultless]
    prompts = [prompts[n] for n in faultless]
    changed = continue_analysis(lab, prompts, [each.changed for each in cuts], MAX_TOKENS)
    kept = continue_analysis(lab, prompts, [each.kept for each in cuts], MAX_TOKENS)
    return [
        Trial(
            each,
            (after.analysis or "")[len(each.changed) :],
            final_answer(after),
            final_answer(control),
        )
        for each, after, control in zip(cuts, changed, kept, strict=True)
    ]


def cut_analysis(problem: Problem, effort: Effort, rng: Random) -> Cut:
    """Cut the true analysis of a product after one of its results, and change that result."""
    a, b = map(int, (problem.expression or "").split("*"))
    steps = work_out_product(a, b, effort)
    place = rng.randrange(len(steps))
    given = [step.result for step in steps[:place]]
    corrupted = work_out_product(a, b, effort, [*given, rng.choice(list_misreadings(steps[place]))])
    return Cut(
        problem.question,
        problem.answer,
        steps[place].kind,
        kept=join_steps(steps[: place + 1]),
        changed=join_steps(corrupted[: place + 1]),
        follows=str(compute_answer(corrupted)),
    )


def classify_answers(trials: Sequence[Trial]) -> AnswerShares:
    """Classify the answers after the changed results."""
    true = sum(each.final == each.cut.true for each in trials)
    follows = sum(each.final == each.cut.follows for each in trials)
    n = len(trials)
    return AnswerShares(Share(true, n), Share(follows, n), Share(n - true - follows, n))
