"""The chain of thought between calls, kept against dropped, in the agent loop itself.

    python -m oss_lab.nano.studies.tool_loop nano --n 100

The problems are those of `dropped.py`: sums of looked-up numbers, whose running total is only in
the analysis between the calls. There, replies are generated in batches and the outputs are known.
Here, `Agent` runs a look-up function, as a user's program would. nano was trained on sums with two
to four calls and always looks up every word first; a sum with one call does not exist in its
training, so the table begins at two.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.agents import Agent, Budget, Run, Tool
from oss_lab.agents.arguments import CallError
from oss_lab.analysis.statistics.shares import Paired, Share
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab, load
from oss_lab.nano.studies.problems import MAX_TOKENS, draw_problems
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.settings import LOOK_UP_TOOL, make_look_up_tool
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.progress import track_progress

COUNTS = (2, 3, 4, 5)


@dataclass(frozen=True)
class ToolLoop:
    """Sums with this many calls.

    Attributes:
        accuracy: first with the kept, then with the dropped reasoning.
        all_called: runs that looked up every word exactly once, likewise.
    """

    calls: int
    effort: Effort
    seed: int
    accuracy: Paired
    all_called: Paired


def study_tool_loop(
    lab: Lab, n: int, seed: int, effort: Effort = "medium", counts: Sequence[int] = COUNTS
) -> list[ToolLoop]:
    """Ask n sums for each number of calls, with the reasoning kept and dropped."""
    found: list[ToolLoop] = []
    for count in counts:
        random = Random(f"{seed}/dropped/{count}")
        problems = draw_problems(ToolSum(count), n, random, make_look_up_tool)
        runs = {
            drop: [
                run_problem(lab, each, effort, drop=drop)
                for each in track_progress(problems, f"{count} calls, {name}", leave=True)
            ]
            for drop, name in ((False, "kept"), (True, "dropped"))
        }
        pairs = [list(zip(problems, of, strict=True)) for of in runs.values()]
        right = [[each.is_right(run.conversation.messages) for each, run in of] for of in pairs]
        called = [[has_called_all(each, run) for each, run in of] for of in pairs]
        found.append(ToolLoop(count, effort, seed, Paired.of(*right), Paired.of(*called)))
    return found


def run_problem(lab: Lab, problem: Problem, effort: Effort, *, drop: bool) -> Run:
    """One run with a look-up function that knows the words of the problem."""
    numbers = {call.arguments: call.output for call in problem.calls}

    def look_up(word: str) -> str:
        arguments = f'{{"word":"{word}"}}'
        if arguments not in numbers:
            raise CallError(f"there is no word {word!r}")
        return numbers[arguments]

    agent = Agent(
        lab,
        [Tool.of(look_up, LOOK_UP_TOOL)],
        budget=Budget(calls=8),
        drop_reasoning=drop,
        effort=effort,
        temperature=0.0,
        max_tokens=MAX_TOKENS,
    )
    return agent.run(problem.question)


def has_called_all(problem: Problem, run: Run) -> bool:
    """Whether the run made the calls of the problem, in order, and no others."""
    return [each.call.arguments for each in run.calls] == [each.arguments for each in problem.calls]


def format_table(found: Sequence[ToolLoop]) -> str:
    """One line per number of calls, with Wilson's 95% intervals."""
    lines = ["calls  effort   n     reasoning kept         reasoning dropped      every word once"]
    for each in found:
        kept, dropped, called = each.accuracy.first, each.accuracy.second, each.all_called
        lines.append(
            f"{each.calls:>5}  {each.effort:<7} {kept.n:>3}  {format_share(kept):<22}"
            f" {format_share(dropped):<22} {called.first.count}, {called.second.count}"
        )
    return "\n".join(lines)


def format_share(share: Share) -> str:
    """The share and its interval in percent."""
    low, high = share.interval or (0.0, 0.0)
    return f"{100 * (share.value or 0):5.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_lab.nano.studies.tool_loop", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="checkpoint folder, or nano")
    parser.add_argument("--n", type=int, default=100, help="problems per row (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--effort", choices=EFFORTS, default="medium")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="CALLS")
    arguments = parser.parse_args()
    if arguments.n < 1 or min(arguments.counts) < 2:
        parser.error("--n must be 1 or more, and --counts 2 or more")
    try:
        lab = load(arguments.folder)
        given = (arguments.n, arguments.seed, arguments.effort, arguments.counts)
        print(format_table(study_tool_loop(lab, *given)))
    except LabError as error:
        sys.exit(f"oss_lab.nano.studies.tool_loop: {error}")


if __name__ == "__main__":
    main()
