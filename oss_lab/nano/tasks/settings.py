"""What the developer message sets, and what follows from it for a problem.

Nothing; instructions that change nothing; a calculator or a look-up that may be called; another
tool, which is of no use; or a rule for what may stand in `final`. Problems of any task are drawn
first and then changed, so that any setting can meet any task, pairs that training never saw too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from oss_lab.harmony.messages import DeveloperContent, Effort, ToolDescription, function_tools
from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.problem import Call, Problem, call_arguments
from oss_lab.nano.tasks.write_digit import WISHES

CALCULATOR = "functions.calculator"
LOOK_UP = "functions.look_up"


def one_text(name: str, description: str, parameter: str) -> ToolDescription:
    """A function of one string."""
    properties = {parameter: {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": [parameter]}
    return ToolDescription(name, description, schema)


CALCULATOR_TOOL = one_text("calculator", "Evaluates an expression.", "expression")
LOOK_UP_TOOL = one_text("look_up", "Tells what a word stands for.", "word")
OTHER_TOOLS = (
    one_text("get_weather", "Tells the weather.", "city"),
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

    def applied(self, rng: Random, problem: Problem) -> Problem:
        changed = self.change(rng, problem)
        history = tuple(self.change(rng, earlier) for earlier in problem.history)
        return replace(changed, developer=self.developer, history=history)


def plain(rng: Random) -> Setting:
    """No developer message."""
    return Setting("plain", None, lambda _, problem: problem)


def instructions(rng: Random) -> Setting:
    """Instructions that change nothing."""
    developer = DeveloperContent(rng.choice(NEUTRAL))
    return Setting("instructions", developer, lambda _, problem: problem)


def calculator(rng: Random) -> Setting:
    """The calculator, alone or beside another tool."""
    tools = [CALCULATOR_TOOL, *rng.sample(OTHER_TOOLS, rng.choice([0, 0, 0, 1]))]
    rng.shuffle(tools)
    declared = DeveloperContent(None, function_tools(tools))
    return Setting("calculator", declared, lambda _, problem: called(problem))


def called(problem: Problem) -> Problem:
    """The problem solved with a call where there is something to calculate."""
    if problem.expression is None or problem.value is None:
        return problem
    before = by_effort(
        "", "I have a calculator.", f"{problem.expression}: I have a calculator for this."
    )
    call = Call(CALCULATOR, call_arguments(expression=problem.expression), problem.value, before)
    return replace(problem, answer=problem.value, thoughts=by_effort("", "", ""), calls=(call,))


def look_up_tool(rng: Random) -> Setting:
    """A tool that tells what a word stands for."""
    declared = DeveloperContent(None, function_tools([LOOK_UP_TOOL]))
    return Setting("look-up tool", declared, lambda _, problem: problem)


def other_tool(rng: Random) -> Setting:
    """A tool that helps with nothing that is asked."""
    tools = rng.sample(OTHER_TOOLS, rng.choice([1, 1, 2]))
    declared = DeveloperContent(None, function_tools(tools))
    return Setting("other tool", declared, lambda _, problem: problem)


def digit_rule(rng: Random, forbidden: int) -> Setting:
    """One digit must not be written in `final`, whatever the user wishes."""
    developer = DeveloperContent(rng.choice(RULES).format(forbidden))
    return Setting("rule", developer, lambda rng, problem: ruled(rng, problem, forbidden))


def ruled(rng: Random, problem: Problem, forbidden: int) -> Problem:
    """The answer in words where it has the forbidden digit; the user may wish otherwise."""
    broken = str(forbidden) in problem.answer
    check = checked(problem.answer, forbidden)
    thoughts: dict[Effort, str] = {
        effort: "" if effort == "low" else f"{thought}\n{check}".strip()
        for effort, thought in problem.thoughts.items()
    }
    answer = in_words(problem.answer) if broken else problem.answer
    question = problem.question + rng.choice(("", "", *WISHES))
    return replace(problem, question=question, answer=answer, thoughts=thoughts)


def checked(answer: str, forbidden: int) -> str:
    """Every digit held against the rule: "1 ok, 5 no: in words."; without digits nothing is."""
    marks = [f"{c} {'no' if int(c) == forbidden else 'ok'}" for c in answer if c.isdigit()]
    return ", ".join(marks) + (": in words." if str(forbidden) in answer else ".") if marks else ""


def in_words(text: str) -> str:
    """Every digit as a word: "15, 7" gives "one five, seven"."""
    words = "".join(f" {DIGIT_WORDS[int(c)]}" if c.isdigit() else c for c in text)
    return words.replace("  ", " ").strip()
