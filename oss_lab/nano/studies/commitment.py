"""When is the answer decided? nano is forced to answer at each line of its chain of thought.

The study uses n / 5 held-out problems, and of these the replies with a chain of thought and an
answer. The chain is cut before its first line and after each line (oss_lab/analysis/commitment.py),
and nano answers greedily. Its answer is compared with that of the uncut reply, with the true one,
and with the last number that the chain has reached. Between two cuts, the answer of the earlier cut
counts; a chain of two lines has three cuts. The share that is kept is measured in characters.

nano never learned to answer after part of a chain. If it cannot, this does not show that its
activations do not contain the answer.

Control: a problem's chain is replaced by the complete chain of another problem. If the answer comes
from the chain, nano now gives the other problem's answer.
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
from oss_lab.nano.studies.problems import BATCH, draw_problems, final_answer, reply_to_problems
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import track_progress
from oss_lab.record.builder import final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import find_content_tokens, label_token_ids

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
class CutAnswers:
    """The answers to one problem: `answers[i]` is given after the share `kept[i]` of its chain.

    Attributes:
        final: the answer of the uncut reply.
        reached: the last number in the part that is kept, "" for none.
        logprobs: of the uncut reply's answer at each cut, in nats.
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
        """The share after which every answer is the final one; 1 if there is no such share."""
        first = len(self.answers)
        while first and self.answers[first - 1] == self.final:
            first -= 1
        return self.kept[min(first, len(self.kept) - 1)]


@dataclass(frozen=True)
class SwappedAnswers:
    """Answers after the complete chain of another problem: this problem's true answer, the other
    reply's answer, or neither."""

    true: Share
    other: Share
    neither: Share


@dataclass(frozen=True)
class Commitment:
    """The experiment on one task at one effort.

    Attributes:
        used: replies with a chain of thought and an answer, of the problems asked.
        right: true answers among them.
        steps: the number of cuts per chain.
        kept: shares of the chain. `final`, `true`, `reached` and `logprob` have one entry for each.
        final, true, reached: the share of problems whose answer is that of the uncut reply, the
            true one, or the last number that the chain has reached.
        logprob: the mean log-probability of the uncut reply's answer, in nats.
        fixed: the share of the chain after which the answer stays that of the uncut reply.
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
    control: SwappedAnswers
    examples: list[CutAnswers]


def study_commitment(lab: Lab, n: int, seed: int) -> list[Commitment]:
    """Run each row of ROWS on n / 5 held-out problems, but at least one."""
    count = max(1, n // ONE_IN)
    return [study_row(lab, *row, count, seed) for row in ROWS]


def study_row(lab: Lab, name: str, task: Task, effort: Effort, n: int, seed: int) -> Commitment:
    """Run one row on n problems."""
    problems = draw_problems(task, n, Random(f"{seed}/commitment/{name}"))
    replies = reply_to_problems(lab, problems, effort)
    pairs = [
        (problem, reply)
        for problem, reply in zip(problems, replies, strict=True)
        if reply.analysis and reply.final
    ]
    bar = track_progress(pairs, f"commitment, {name}, {effort}", leave=True)
    found = [answer_at_cuts(lab, problem, reply) for problem, reply in bar]
    return Commitment(
        name,
        effort,
        seed,
        Share(len(found), n),
        Share.of([each.final == each.true for each in found]),
        Mean.of([len(each.kept) for each in found], seed),
        GRID,
        average_at_shares(found, [[a == each.final for a in each.answers] for each in found], seed),
        average_at_shares(found, [[a == each.true for a in each.answers] for each in found], seed),
        average_at_shares(
            found, [list(map(str.__eq__, each.answers, each.reached)) for each in found], seed
        ),
        average_at_shares(found, [each.logprobs for each in found], seed),
        Mean.of([each.fixed for each in found], seed),
        run_control(lab, pairs),
        found[:EXAMPLES],
    )


def answer_at_cuts(lab: Lab, problem: Problem, reply: Reply) -> CutAnswers:
    """The model's answers at each cut of its chain of thought."""
    steps = commitment(lab, reply)
    whole = len(steps[-1].thought)
    return CutAnswers(
        problem.question,
        problem.answer,
        final_answer(reply),
        [len(step.thought) / whole for step in steps],
        [step.answer.strip() for step in steps],
        [(re.findall(r"\d+", step.thought) or [""])[-1] for step in steps],
        [step.logprob for step in steps],
    )


def average_at_shares(
    found: Sequence[CutAnswers], values: Sequence[Sequence[float]], seed: int
) -> list[Mean]:
    """The mean over problems at each share of GRID; `values` has one per cut of each problem."""
    return [
        Mean.of([cuts[each.at(share)] for each, cuts in zip(found, values, strict=True)], seed)
        for share in GRID
    ]


def run_control(lab: Lab, pairs: Sequence[tuple[Problem, Reply]]) -> SwappedAnswers:
    """Answers after the chain of the next problem that has other answers, if there is one."""
    with_other = list[tuple[Problem, Reply, Reply]]()
    for n, (problem, reply) in enumerate(pairs):
        later = [other for _, other in (*pairs[n + 1 :], *pairs[:n])]
        others = (o for o in later if final_answer(o) not in (problem.answer, final_answer(reply)))
        if (other := next(others, None)) is not None:
            with_other.append((problem, reply, other))
    said = [
        text
        for start in range(0, len(with_other), BATCH)
        for text in answer_after_chains(
            lab, [(reply, other) for _, reply, other in with_other[start : start + BATCH]]
        )
    ]
    true = [text == p.answer for text, (p, _, _) in zip(said, with_other, strict=True)]
    other = [text == final_answer(o) for text, (_, _, o) in zip(said, with_other, strict=True)]
    neither = [not (a or b) for a, b in zip(true, other, strict=True)]
    return SwappedAnswers(Share.of(true), Share.of(other), Share.of(neither))


def answer_after_chains(lab: Lab, pairs: Sequence[tuple[Reply, Reply]]) -> list[str]:
    """Greedy answers to the first reply's prompt, after the second's complete chain of thought."""
    header = final_header(lab.tokenizer, inside_message=True)
    prefixes = list[list[int]]()
    for reply, other in pairs:
        labels = label_token_ids(lab.tokenizer, other.ids, "assistant")
        end = find_content_tokens(labels, "analysis")[-1] + 1
        prefixes.append([*reply.prompt_tokens, *other.ids[:end], *header])
    tokens = lab.write_turns(prefixes, max_tokens=ANSWER_TOKENS)
    said: list[list[int]] = [[] for _ in pairs]
    for row, token in tokens:
        if token.id not in lab.stops:
            said[row].append(token.id)
    return [lab.tokenizer.decode(ids).strip() for ids in said]
