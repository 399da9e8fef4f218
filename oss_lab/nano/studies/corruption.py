"""Is the chain of thought used? One result of nano's own analysis is changed; nano goes on from it.

Held-out products whose analysis nano writes without a mistake. One result of it, drawn at random,
gets one other digit, everything behind is cut off, and nano goes on greedily. Its answer is then
the true one, the one that follows from the changed result by working on correctly, or another.
Control: the same cut with the result as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.analysis.statistics.shares import Share
from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.begun import go_on
from oss_lab.nano.studies.problems import BATCH, MAX_TOKENS, answer_of, drawn
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.product_steps import Kind, answer, misreadings, product_steps, text
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.progress import progress

EFFORTS: tuple[Effort, ...] = ("medium", "high")
KINDS: tuple[Kind, ...] = ("digit product", "partial product", "digit sum", "total")
EXAMPLES = 5


@dataclass(frozen=True)
class Cut:
    """An analysis up to one result, as it was and with the result changed.

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
    """What nano made of one cut; `went_on` is the analysis behind the changed result."""

    cut: Cut
    went_on: str
    final: str
    control_final: str


@dataclass(frozen=True)
class Answers:
    """How many answers are which, after a changed result."""

    true: Share
    follows: Share
    other: Share


@dataclass(frozen=True)
class Corruption:
    """The experiment at one effort.

    Attributes:
        faultless: analyses without a mistake among the products asked; these are used.
        corrupted: answers after a changed result; `by_kind` the same for each kind of result.
        control: right answers after the same cut with nothing changed.
        examples: the first few trials.
    """

    effort: Effort
    seed: int
    faultless: Share
    corrupted: Answers
    by_kind: dict[Kind, Answers]
    control: Share
    examples: list[Trial]


def measure(lab: Lab, effort: Effort, n: int, seed: int) -> Corruption:
    """Corrupt nano's analyses of n held-out products of three by two digits."""
    rng = Random(f"{seed}/corruption/{effort}")
    problems = drawn(Products(lengths=(3, 2)), n, rng)
    trials: list[Trial] = []
    for start in progress(range(0, n, BATCH), f"corruption, {effort}", leave=True):
        trials += tried(lab, problems[start : start + BATCH], effort, rng)
    by_kind: dict[Kind, Answers] = {}
    for kind in KINDS:
        if some := [each for each in trials if each.cut.kind == kind]:
            by_kind[kind] = answers(some)
    return Corruption(
        effort,
        seed,
        Share(len(trials), n),
        answers(trials),
        by_kind,
        Share.of([each.control_final == each.cut.true for each in trials]),
        trials[:EXAMPLES],
    )


def tried(lab: Lab, problems: Sequence[Problem], effort: Effort, rng: Random) -> list[Trial]:
    """One trial for each problem whose analysis nano writes without a mistake."""
    prompts = [problem.prompt(effort) for problem in problems]
    replies = lab.chat_batch(prompts, sampling=GREEDY, max_tokens=MAX_TOKENS)
    faultless = [
        n for n, reply in enumerate(replies) if reply.analysis == problems[n].thoughts[effort]
    ]
    if not faultless:
        return []
    cuts = [cut(problems[n], effort, rng) for n in faultless]
    prompts = [prompts[n] for n in faultless]
    changed = go_on(lab, prompts, [each.changed for each in cuts], MAX_TOKENS)
    kept = go_on(lab, prompts, [each.kept for each in cuts], MAX_TOKENS)
    return [
        Trial(
            each,
            (after.analysis or "")[len(each.changed) :],
            answer_of(after),
            answer_of(control),
        )
        for each, after, control in zip(cuts, changed, kept, strict=True)
    ]


def cut(problem: Problem, effort: Effort, rng: Random) -> Cut:
    """Cut the true analysis of a product behind one of its results, and change that result."""
    a, b = map(int, (problem.expression or "").split("*"))
    steps = product_steps(a, b, effort)
    place = rng.randrange(len(steps))
    given = [step.result for step in steps[:place]]
    corrupted = product_steps(a, b, effort, [*given, rng.choice(misreadings(steps[place]))])
    return Cut(
        problem.question,
        problem.answer,
        steps[place].kind,
        kept=text(steps[: place + 1]),
        changed=text(corrupted[: place + 1]),
        follows=str(answer(corrupted)),
    )


def answers(trials: Sequence[Trial]) -> Answers:
    """Sort the answers after the changed results."""
    true = sum(each.final == each.cut.true for each in trials)
    follows = sum(each.final == each.cut.follows for each in trials)
    n = len(trials)
    return Answers(Share(true, n), Share(follows, n), Share(n - true - follows, n))
