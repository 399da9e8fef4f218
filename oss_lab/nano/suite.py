"""The built-in evaluation: held-out problems of nano's tasks, and harder ones in a stress section.

A row is a task in a setting. No training question of the task asks any of its problems. Rows of the
stress section also go beyond the kinds of problem that training covers.
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
    apply_rule,
    make_calculator,
    make_digit_rule,
    make_look_up_tool,
    make_other_tool,
    make_plain,
    solve_with_call,
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

REPEATS = 1000  # repeated draws in succession, after which a row has no new problems


@dataclass(frozen=True)
class SuiteRow:
    """A task in a setting; problems for which `keep` is false are dropped.

    Attributes:
        max_problems: the maximum number of problems; a row with fewer distinct problems has all
            of them.
    """

    task: Task
    setting: Callable[[Random], Setting] = make_plain
    keep: Callable[[Problem], bool] = lambda _: True
    max_problems: int = 1000
    efforts: tuple[Effort, ...] = EFFORTS

    def draw_problems(self, name: str, n: int, seed: int) -> list[Problem]:
        """Up to n distinct held-out problems; a larger n only adds problems at the end.

        Two problems are the same if they have the same terms in any order. Problems without terms
        are the same if they have the same words.
        """
        rng, drawn, repeats = Random(f"{seed}/{name}"), dict[object, Problem](), 0
        while len(drawn) < min(n, self.max_problems) and repeats < REPEATS:
            setting = self.setting(rng)
            problem = setting.apply(rng, self.task.draw(rng, "held_out"))
            key = problem_key(problem)
            if key in drawn:
                repeats += 1
            elif self.keep(problem):
                drawn[key], repeats = replace(problem, name=name), 0
        return list(drawn.values())


def problem_key(problem: Problem) -> object:
    """A key that is equal for problems that differ only in wording and order of terms."""
    if problem.expression:
        asked = expression_key(problem.expression)
    else:
        asked = problem.question, tuple(call.output for call in problem.calls)
    return asked, tuple(map(problem_key, problem.history))


def make_rule_against_5(rng: Random) -> Setting:
    """The rule against the digit 5."""
    return make_digit_rule(rng, 5)


def is_spelled(problem: Problem) -> bool:
    """Whether the rule changes the answer: its digits are spelled as words."""
    return not any(c.isdigit() for c in problem.answer)


def make_calculator_and_rule(rng: Random) -> Setting:
    """Calculator and rule in one developer message, which training never has."""
    tool, rule = make_calculator(rng), make_rule_against_5(rng)
    assert tool.developer
    assert rule.developer
    both = replace(tool.developer, instructions=rule.developer.instructions)
    return Setting("both", both, lambda rng, problem: apply_rule(rng, solve_with_call(problem), 5))


ARITHMETIC = Mixed("arithmetic", ((Products(), 1.0), (Sums(), 1.0), (TooLong(), 1.0)))
EASY_SUMS = Sums(terms=2, digits=2)
SUITE: dict[str, SuiteRow] = {
    "product 3x2 digits": SuiteRow(Products(lengths=(3, 2))),
    "product 2x2 digits": SuiteRow(Products(lengths=(2, 2))),
    "product 3x1 digits": SuiteRow(Products(lengths=(3, 1))),
    "product 2x1 digits": SuiteRow(Products(lengths=(2, 1))),
    "sum 2 terms, 3 digits": SuiteRow(Sums(terms=2, digits=3, signs="+")),
    "difference, 3 digits": SuiteRow(Sums(terms=2, digits=3, signs="-")),
    "sum 3 terms": SuiteRow(Sums(terms=3, digits=2)),
    "sum 4 terms": SuiteRow(Sums(terms=4, digits=2)),
    "sum 5 terms": SuiteRow(Sums(terms=5, digits=2)),
    "sum 6 terms": SuiteRow(Sums(terms=6, digits=2)),
    "look-up beyond the window": SuiteRow(Lookup(filler=(40, 80))),
    "look-up beyond the initial context": SuiteRow(
        Lookup(pairs=(4, 8), filler=(280, 400)), max_problems=500
    ),
    "look-up, 2 hops": SuiteRow(Lookup(hops=2)),
    "look-up, 3 hops": SuiteRow(Lookup(hops=3)),
    "list": SuiteRow(Lists()),
    "calculator, arithmetic": SuiteRow(ARITHMETIC, make_calculator),
    "calculator, nothing it learnt to calculate": SuiteRow(
        Mixed("no sum", ((NOT_TO_CALCULATE, 2.0), (Lists(), 1.0), (Lookup(), 1.0))),
        make_calculator,
        lambda problem: not problem.calls,
    ),
    "tool sum, 2 calls": SuiteRow(ToolSum(2), make_look_up_tool),
    "tool sum, 4 calls": SuiteRow(ToolSum(4), make_look_up_tool),
    "other tool, arithmetic": SuiteRow(ARITHMETIC, make_other_tool),
    "too long, no calculator": SuiteRow(TooLong()),
    "rule against 5, sum": SuiteRow(EASY_SUMS, make_rule_against_5, is_spelled),
    "rule against 5, product": SuiteRow(Products(lengths=(3, 2)), make_rule_against_5, is_spelled),
    "rule against 5, look-up": SuiteRow(Lookup(asked=1), make_rule_against_5, is_spelled),
    "rule against 5, sum without one": SuiteRow(
        EASY_SUMS, make_rule_against_5, lambda problem: not is_spelled(problem)
    ),
    "rule against 5, write it": SuiteRow(WriteDigit(5), make_rule_against_5),
    "no rule, write a digit": SuiteRow(WriteDigit()),
    "follow-up": SuiteRow(FollowUp()),
    "later turn": SuiteRow(Turns(ANY_SHORT, SHORT)),
    "out of reach": SuiteRow(OutOfReach(), max_problems=200),
    "small talk": SuiteRow(SmallTalk()),
    "forbidden subject": SuiteRow(Forbidden()),
}
HIGH: tuple[Effort, ...] = ("high",)
STRESS: dict[str, SuiteRow] = {
    "product 3x2, unseen wording": SuiteRow(
        Products(lengths=(3, 2), wordings=UNSEEN_WORDINGS), max_problems=200, efforts=HIGH
    ),
    "sum 7 terms": SuiteRow(Sums(terms=7, digits=2), max_problems=200, efforts=HIGH),
    "look-up 600 words back": SuiteRow(
        Lookup(pairs=(4, 8), filler=(600, 600)), max_problems=200, efforts=HIGH
    ),
    "look-up 1,500 words back": SuiteRow(
        Lookup(pairs=(4, 8), filler=(1500, 1500)), max_problems=100, efforts=HIGH
    ),
    "tool sum, 6 calls": SuiteRow(ToolSum(6), make_look_up_tool, max_problems=200, efforts=HIGH),
    "look-up, 4 hops": SuiteRow(Lookup(hops=4, pairs=(6, 12)), max_problems=200, efforts=HIGH),
    "look-up among 20": SuiteRow(Lookup(pairs=(20, 20)), max_problems=200, efforts=HIGH),
    "unseen rule, sum": SuiteRow(
        EASY_SUMS,
        lambda rng: make_digit_rule(rng, find_unseen_digit("sum")),
        is_spelled,
        max_problems=200,
        efforts=HIGH,
    ),
    "calculator and rule": SuiteRow(
        ARITHMETIC, make_calculator_and_rule, is_spelled, max_problems=200, efforts=HIGH
    ),
}


def find_unseen_digit(task: str) -> int:
    """The first digit for which training never combines the rule with this task."""
    return next(digit for digit in range(10) if is_unseen_rule(digit, task))


def draw_questions(n: int, seed: int) -> list[Question]:
    """At most n questions per row of the suite."""
    return [each for name, row in SUITE.items() for each in row.draw_problems(name, n, seed)]
