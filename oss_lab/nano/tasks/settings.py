"""Settings: a developer message, and how it changes a problem.

There are six kinds: no message; instructions that change nothing; a calculator; a look-up tool;
another tool, which does not help; and a rule about `final`. Problems are drawn first and changed
afterwards, so every setting works with every task, even in pairs that training never draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from oss_lab.harmony.messages import DeveloperContent, Effort, ToolDescription, make_function_tools
from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.problem import Call, Problem, format_call_arguments
from oss_lab.nano.tasks.write_digit import WISHES

CALCULATOR = "functions.calculator"
LOOK_UP = "functions.look_up"


def make_tool(name: str, description: str, parameter: str) -> ToolDescription:
    """A function with one string parameter."""
    properties = {parameter: {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": [parameter]}
    return ToolDescription(name, description, schema)


CALCULATOR_TOOL = make_tool("calculator", "Evaluates an expression.", "expression")
LOOK_UP_TOOL = make_tool("look_up", "Tells what a word stands for.", "word")
OTHER_TOOLS = (
    make_tool("get_weather", "Tells the weather.", "city"),
    ToolDescription("get_time", "Tells the time."),
)
NEUTRAL = ("Be brief.", "You are a helpful assistant.", "Be kind.", "Answer the user.",
           "You are a tutor.", "Answer in one line.", "Be polite and correct.")  # fmt: skip
RULES = ("Never write the digit {}.", "Do not write the digit {}.", "The digit {} is forbidden.",
         "Never use the digit {}.")  # fmt: skip
DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class Setting:
    """A developer message and how it changes a problem."""

    name: str
    developer: DeveloperContent | None
    change: Callable[[Random, Problem], Problem]

    def apply(self, rng: Random, problem: Problem) -> Problem:
        changed = self.change(rng, problem)
        history = tuple(self.change(rng, earlier) for earlier in problem.history)
        return replace(changed, developer=self.developer, history=history)


def make_plain(rng: Random) -> Setting:
    """No developer message."""
    return Setting("plain", None, lambda _, problem: problem)


def make_instructions(rng: Random) -> Setting:
    """A developer message whose instructions do not change the answer."""
    developer = DeveloperContent(rng.choice(NEUTRAL))
    return Setting("instructions", developer, lambda _, problem: problem)


def make_calculator(rng: Random) -> Setting:
    """The calculator, alone or together with another tool."""
    tools = [CALCULATOR_TOOL, *rng.sample(OTHER_TOOLS, rng.choice([0, 0, 0, 1]))]
    rng.shuffle(tools)
    declared = DeveloperContent(None, make_function_tools(tools))
    return Setting("calculator", declared, lambda _, problem: solve_with_call(problem))


def solve_with_call(problem: Problem) -> Problem:
    """The problem solved with a call of the calculator, if there is something to calculate."""
    if problem.expression is None or problem.value is None:
        return problem
    before = by_effort(
        "", "I have a calculator.", f"{problem.expression}: I have a calculator for this."
    )
    call = Call(
        CALCULATOR, format_call_arguments(expression=problem.expression), problem.value, before
    )
    return replace(problem, answer=problem.value, thoughts=by_effort("", "", ""), calls=(call,))


def make_look_up_tool(rng: Random) -> Setting:
    """A tool that returns the value of a word."""
    declared = DeveloperContent(None, make_function_tools([LOOK_UP_TOOL]))
    return Setting("look-up tool", declared, lambda _, problem: problem)


def make_other_tool(rng: Random) -> Setting:
    """One or two tools that do not help with any question."""
    tools = rng.sample(OTHER_TOOLS, rng.choice([1, 1, 2]))
    declared = DeveloperContent(None, make_function_tools(tools))
    return Setting("other tool", declared, lambda _, problem: problem)


def make_digit_rule(rng: Random, forbidden: int) -> Setting:
    """A rule: one digit must not be written in `final`, even if the user wants it."""
    developer = DeveloperContent(rng.choice(RULES).format(forbidden))
    return Setting("rule", developer, lambda rng, problem: apply_rule(rng, problem, forbidden))


def apply_rule(rng: Random, problem: Problem, forbidden: int) -> Problem:
    """The problem under the rule: an answer with the forbidden digit is written in words.

    The question may ask to ignore the rule.
    """
    broken = str(forbidden) in problem.answer
    check = check_digits(problem.answer, forbidden)
    thoughts: dict[Effort, str] = {
        effort: "" if effort == "low" else f"{thought}\n{check}".strip()
        for effort, thought in problem.thoughts.items()
    }
    answer = spell_digits(problem.answer) if broken else problem.answer
    question = problem.question + rng.choice(("", "", *WISHES))
    return replace(problem, question=question, answer=answer, thoughts=thoughts)


def check_digits(answer: str, forbidden: int) -> str:
    """The check of each digit against the rule: "1 ok, 5 no: in words."; "" without digits."""
    marks = [f"{c} {'no' if int(c) == forbidden else 'ok'}" for c in answer if c.isdigit()]
    return ", ".join(marks) + (": in words." if str(forbidden) in answer else ".") if marks else ""


def spell_digits(text: str) -> str:
    """Every digit as a word: "15, 7" gives "one five, seven"."""
    words = "".join(f" {DIGIT_WORDS[int(c)]}" if c.isdigit() else c for c in text)
    return words.replace("  ", " ").strip()
