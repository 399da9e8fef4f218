"""The built-in questions: nano's tasks, held out, and a stress section beyond what it learned.

A row is a task in a setting. Its problems are ones that no training question of the task asks; rows
of the stress section also leave what training covers in kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from oss_lab.evaluation.question import Question
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.dialogue import FollowUp, Turns
from oss_lab.nano.tasks.free_text import Forbidden, OutOfReach, SmallTalk
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import ANY_SHORT, NOT_TO_CALCULATE, SHORT, Mixed, is_unseen_rule
from oss_lab.nano.tasks.settings import (
    Setting,
    calculator,
    called,
    digit_rule,
    look_up_tool,
    other_tool,
    plain,
    ruled,
)
from oss_lab.nano.tasks.sums_and_products import (
    UNSEEN_WORDINGS,
    Products,
    Sums,
    TooLong,
    expression_key,
)
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.nano.tasks.write_digit import WriteDigit

REPEATS = 1000  # draws in a row of what was drawn, after which a row is taken to be exhausted


@dataclass(frozen=True)
class Row:
    """A task in a setting; `keep` says which problems are of interest.

    Attributes:
        most: questions at the most; where there are not so many different ones, all are asked.
    """

    task: Task
    setting: Callable[[Random], Setting] = plain
    keep: Callable[[Problem], bool] = lambda _: True
    most: int = 1000
    efforts: tuple[Effort, ...] = EFFORTS

    def problems(self, name: str, n: int, seed: int) -> list[Problem]:
        """Up to n different held-out problems; the first of a larger n are those of a smaller.

        Problems of the same terms, in any order, or, where there are none, with the same words are
        the same.
        """
        rng, drawn, repeats = Random(f"{seed}/{name}"), dict[object, Problem](), 0
        while len(drawn) < min(n, self.most) and repeats < REPEATS:
            setting = self.setting(rng)
            problem = setting.applied(rng, self.task.draw(rng, "held_out"))
            key = sameness(problem)
            if key in drawn:
                repeats += 1
            elif self.keep(problem):
                drawn[key], repeats = replace(problem, name=name), 0
        return list(drawn.values())


def sameness(problem: Problem) -> object:
    """What two problems share that are the same but for wording and order of terms."""
    if problem.expression:
        asked = expression_key(problem.expression)
    else:
        asked = problem.question, tuple(call.output for call in problem.calls)
    return asked, tuple(map(sameness, problem.history))


def rule_against_5(rng: Random) -> Setting:
    """The rule against one digit, always the same."""
    return digit_rule(rng, 5)


def is_spelt(problem: Problem) -> bool:
    """Whether the rule bites: the answer would have had the digit."""
    return not any(c.isdigit() for c in problem.answer)


def calculator_and_rule(rng: Random) -> Setting:
    """Both at once, which training never saw."""
    tool, rule = calculator(rng), rule_against_5(rng)
    assert tool.developer
    assert rule.developer
    both = replace(tool.developer, instructions=rule.developer.instructions)
    return Setting("both", both, lambda rng, problem: ruled(rng, called(problem), 5))


ARITHMETIC = Mixed("arithmetic", ((Products(), 1.0), (Sums(), 1.0), (TooLong(), 1.0)))
EASY_SUMS = Sums(terms=2, digits=2)
SUITE: dict[str, Row] = {
    "product 3x2 digits": Row(Products(lengths=(3, 2))),
    "product 2x2 digits": Row(Products(lengths=(2, 2))),
    "product 3x1 digits": Row(Products(lengths=(3, 1))),
    "product 2x1 digits": Row(Products(lengths=(2, 1))),
    "sum 2 terms, 3 digits": Row(Sums(terms=2, digits=3, signs="+")),
    "difference, 3 digits": Row(Sums(terms=2, digits=3, signs="-")),
    "sum 3 terms": Row(Sums(terms=3, digits=2)),
    "sum 4 terms": Row(Sums(terms=4, digits=2)),
    "sum 5 terms": Row(Sums(terms=5, digits=2)),
    "sum 6 terms": Row(Sums(terms=6, digits=2)),
    "look-up beyond the window": Row(Lookup(filler=(40, 80))),
    "look-up beyond the initial context": Row(Lookup(pairs=(4, 8), filler=(280, 400)), most=500),
    "look-up, 2 hops": Row(Lookup(hops=2)),
    "look-up, 3 hops": Row(Lookup(hops=3)),
    "list": Row(Lists()),
    "calculator, arithmetic": Row(ARITHMETIC, calculator),
    "calculator, nothing it learnt to calculate": Row(
        Mixed("no sum", ((NOT_TO_CALCULATE, 2.0), (Lists(), 1.0), (Lookup(), 1.0))),
        calculator,
        lambda problem: not problem.calls,
    ),
    "tool sum, 2 calls": Row(ToolSum(2), look_up_tool),
    "tool sum, 4 calls": Row(ToolSum(4), look_up_tool),
    "other tool, arithmetic": Row(ARITHMETIC, other_tool),
    "too long, no calculator": Row(TooLong()),
    "rule against 5, sum": Row(EASY_SUMS, rule_against_5, is_spelt),
    "rule against 5, product": Row(Products(lengths=(3, 2)), rule_against_5, is_spelt),
    "rule against 5, look-up": Row(Lookup(asked=1), rule_against_5, is_spelt),
    "rule against 5, sum without one": Row(
        EASY_SUMS, rule_against_5, lambda problem: not is_spelt(problem)
    ),
    "rule against 5, write it": Row(WriteDigit(5), rule_against_5),
    "no rule, write a digit": Row(WriteDigit()),
    "follow-up": Row(FollowUp()),
    "later turn": Row(Turns(ANY_SHORT, SHORT)),
    "out of reach": Row(OutOfReach(), most=200),
    "small talk": Row(SmallTalk()),
    "forbidden subject": Row(Forbidden()),
}
HIGH: tuple[Effort, ...] = ("high",)
STRESS: dict[str, Row] = {
    "product 3x2, unseen wording": Row(
        Products(lengths=(3, 2), wordings=UNSEEN_WORDINGS), most=200, efforts=HIGH
    ),
    "sum 7 terms": Row(Sums(terms=7, digits=2), most=200, efforts=HIGH),
    "look-up 600 words back": Row(Lookup(pairs=(4, 8), filler=(600, 600)), most=200, efforts=HIGH),
    "look-up 1,500 words back": Row(
        Lookup(pairs=(4, 8), filler=(1500, 1500)), most=100, efforts=HIGH
    ),
    "tool sum, 6 calls": Row(ToolSum(6), look_up_tool, most=200, efforts=HIGH),
    "look-up, 4 hops": Row(Lookup(hops=4, pairs=(6, 12)), most=200, efforts=HIGH),
    "look-up among 20": Row(Lookup(pairs=(20, 20)), most=200, efforts=HIGH),
    "unseen rule, sum": Row(
        EASY_SUMS,
        lambda rng: digit_rule(rng, unseen_digit("sum")),
        is_spelt,
        most=200,
        efforts=HIGH,
    ),
    "calculator and rule": Row(ARITHMETIC, calculator_and_rule, is_spelt, most=200, efforts=HIGH),
}


def unseen_digit(task: str) -> int:
    """The first digit whose rule training never puts before this task."""
    return next(digit for digit in range(10) if is_unseen_rule(digit, task))


def questions(n: int, seed: int) -> list[Question]:
    """At most n questions for each row of the suite."""
    return [each for name, row in SUITE.items() for each in row.problems(name, n, seed)]
