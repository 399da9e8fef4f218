"""When is the answer decided? At each step of the chain of thought, nano is made to answer.

Held-out problems, one in five of n, whose replies have a chain of thought and an answer. The chain
is cut before its first line and behind each (oss_lab/analysis/commitment.py), and the answer that
follows greedily is held against the reply's own answer, the true one, and the last number that the
chain has reached. Between two cuts the answer of the earlier one stands; a chain of two lines has
three cuts. How much is kept is counted in characters.

nano never learned to answer behind half a chain: that it cannot is no proof that it does not know.

Control: the whole chain of another problem in the place of a problem's own. If the answer comes
from the chain, it is then the other problem's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.analysis.commitment import ANSWER_TOKENS, commitment
from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.analysis.statistics.shares import Share
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import BATCH, answer_of, drawn, replied
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import progress
from oss_lab.record.builder import final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import content_on, token_labels

ROWS: tuple[tuple[str, Task, Effort], ...] = (
    ("product 3x2 digits", Products(lengths=(3, 2)), "medium"),
    ("product 3x2 digits", Products(lengths=(3, 2)), "high"),
    ("sum 2 terms, 3 digits", Sums(terms=2, digits=3, signs="+"), "medium"),
    ("sum 2 terms, 3 digits", Sums(terms=2, digits=3, signs="+"), "high"),
)
ONE_IN = 5
GRID = tuple(tenth / 10 for tenth in range(11))
EXAMPLES = 3


@dataclass(frozen=True)
class Answers:
    """The answers of one problem: `answers[i]` where the share `kept[i]` of its chain stands.

    Attributes:
        final: of the reply itself.
        reached: the last number in what is kept, "" for none.
        logprobs: of the reply's own answer there, in nats.
    """

    question: str
    true: str
    final: str
    kept: list[float]
    answers: list[str]
    reached: list[str]
    logprobs: list[float]

    def at(self, share: float) -> int:
        """The last cut that keeps no more than this share."""
        return max(n for n, kept in enumerate(self.kept) if kept <= share)

    @property
    def fixed(self) -> float:
        """The share from which on every answer is the final one; 1 also where none is."""
        first = len(self.answers)
        while first and self.answers[first - 1] == self.final:
            first -= 1
        return self.kept[min(first, len(self.kept) - 1)]


@dataclass(frozen=True)
class Swapped:
    """Answers behind the whole chain of another problem: this problem's true one, the other
    reply's, or neither."""

    true: Share
    other: Share
    neither: Share


@dataclass(frozen=True)
class Commitment:
    """The experiment on one task at one effort.

    Attributes:
        used: replies with a chain of thought and an answer, of the problems asked.
        right: true answers among them.
        steps: cuts a chain.
        kept: shares of the chain; the lists `final`, `true` and `reached` have an entry for each,
            the share of problems whose answer there is the reply's own, the true one, the last
            number that the chain has reached; `logprob` the mean one of the reply's own answer
            there, in nats.
        fixed: the share of the chain from which on the answer is the reply's own.
    """

    task: str
    effort: Effort
    seed: int
    used: Share
    right: Share
    steps: Mean
    kept: tuple[float, ...]
    final: list[Mean]
    true: list[Mean]
    reached: list[Mean]
    logprob: list[Mean]
    fixed: Mean
    control: Swapped
    examples: list[Answers]


def measure(lab: Lab, n: int, seed: int) -> list[Commitment]:
    """Each row on n / 5 held-out problems, at least one."""
    count = max(1, n // ONE_IN)
    return [measured(lab, *row, count, seed) for row in ROWS]


def measured(lab: Lab, name: str, task: Task, effort: Effort, n: int, seed: int) -> Commitment:
    """One row."""
    problems = drawn(task, n, Random(f"{seed}/commitment/{name}"))
    replies = replied(lab, problems, effort)
    pairs = [
        (problem, reply)
        for problem, reply in zip(problems, replies, strict=True)
        if reply.analysis and reply.final
    ]
    bar = progress(pairs, f"commitment, {name}, {effort}", leave=True)
    found = [answers(lab, problem, reply) for problem, reply in bar]
    return Commitment(
        name,
        effort,
        seed,
        Share(len(found), n),
        Share.of([each.final == each.true for each in found]),
        Mean.of([len(each.kept) for each in found], seed),
        GRID,
        curve(found, [[a == each.final for a in each.answers] for each in found], seed),
        curve(found, [[a == each.true for a in each.answers] for each in found], seed),
        curve(found, [list(map(str.__eq__, each.answers, each.reached)) for each in found], seed),
        curve(found, [each.logprobs for each in found], seed),
        Mean.of([each.fixed for each in found], seed),
        control(lab, pairs),
        found[:EXAMPLES],
    )


def answers(lab: Lab, problem: Problem, reply: Reply) -> Answers:
    """What the model answers at each cut of its chain."""
    steps = commitment(lab, reply)
    whole = len(steps[-1].thought)
    return Answers(
        problem.question,
        problem.answer,
        answer_of(reply),
        [len(step.thought) / whole for step in steps],
        [step.answer.strip() for step in steps],
        [(re.findall(r"\d+", step.thought) or [""])[-1] for step in steps],
        [step.logprob for step in steps],
    )


def curve(found: Sequence[Answers], values: Sequence[Sequence[float]], seed: int) -> list[Mean]:
    """The mean over problems at each share of GRID; `values` has one for each cut of each."""
    return [
        Mean.of([cuts[each.at(share)] for each, cuts in zip(found, values, strict=True)], seed)
        for share in GRID
    ]


def control(lab: Lab, pairs: Sequence[tuple[Problem, Reply]]) -> Swapped:
    """Each problem with the chain of the next one whose answers are others, if there is one."""
    with_other = list[tuple[Problem, Reply, Reply]]()
    for n, (problem, reply) in enumerate(pairs):
        later = [other for _, other in (*pairs[n + 1 :], *pairs[:n])]
        others = (o for o in later if answer_of(o) not in (problem.answer, answer_of(reply)))
        if (other := next(others, None)) is not None:
            with_other.append((problem, reply, other))
    said = [
        text
        for start in range(0, len(with_other), BATCH)
        for text in behind_chains(
            lab, [(reply, other) for _, reply, other in with_other[start : start + BATCH]]
        )
    ]
    true = [text == p.answer for text, (p, _, _) in zip(said, with_other, strict=True)]
    other = [text == answer_of(o) for text, (_, _, o) in zip(said, with_other, strict=True)]
    neither = [not (a or b) for a, b in zip(true, other, strict=True)]
    return Swapped(Share.of(true), Share.of(other), Share.of(neither))


def behind_chains(lab: Lab, pairs: Sequence[tuple[Reply, Reply]]) -> list[str]:
    """The greedy answer to the first reply's prompt behind the second's whole chain of thought."""
    header = final_header(lab.tokenizer, inside_message=True)
    begun = list[list[int]]()
    for reply, other in pairs:
        labels = token_labels(lab.tokenizer, other.ids, "assistant")
        end = content_on(labels, "analysis")[-1] + 1
        begun.append([*reply.prompt_tokens, *other.ids[:end], *header])
    tokens = lab.write_turns(begun, max_tokens=ANSWER_TOKENS)
    said: list[list[int]] = [[] for _ in pairs]
    for row, token in tokens:
        if token.id not in lab.stops:
            said[row].append(token.id)
    return [lab.tokenizer.decode(ids).strip() for ids in said]
