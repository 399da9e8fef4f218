"""What is lost if a client drops the reasoning between two calls of one turn?

Sums of looked-up numbers with two to six calls, at medium effort. The running total is only in the
analysis between the calls. `kept` returns that analysis to the model together with the calls;
`dropped` leaves it out each time, and the model has to continue without it.
"""

from dataclasses import dataclass
from random import Random

from oss_lab.analysis.statistics.shares import Paired
from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony import Conversation, Message
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import BATCH, MAX_TOKENS, draw_problems
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.settings import make_look_up_tool
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.progress import track_progress
from oss_lab.record.calls import ROUNDS, build_output_messages

COUNTS = (2, 3, 4, 5, 6)
EFFORT: Effort = "medium"


@dataclass(frozen=True)
class Dropped:
    """Sums with this many calls; `accuracy` has first the kept, then the dropped reasoning."""

    calls: int
    effort: Effort
    seed: int
    accuracy: Paired


def study_dropped(lab: Lab, n: int, seed: int) -> list[Dropped]:
    """Ask n sums for each number of calls."""
    found: list[Dropped] = []
    for count in track_progress(COUNTS, "reasoning between calls", leave=True):
        problems = draw_problems(
            ToolSum(count), n, Random(f"{seed}/dropped/{count}"), make_look_up_tool
        )
        kept, dropped = (grade_conversations(lab, problems, keep) for keep in (True, False))
        found.append(Dropped(count, EFFORT, seed, Paired.of(kept, dropped)))
    return found


def grade_conversations(lab: Lab, problems: list[Problem], keep: bool) -> list[bool]:
    """Which problems are right with the analysis between calls kept (or dropped)."""
    right: list[bool] = []
    for start in range(0, len(problems), BATCH):
        right += answer_batch(lab, problems[start : start + BATCH], keep)
    return right


def answer_batch(lab: Lab, problems: list[Problem], keep: bool) -> list[bool]:
    """One conversation per problem, continued until it has no call that the tool answers."""
    said: dict[int, list[Message]] = {n: [] for n in range(len(problems))}
    going = list(said)
    for _ in range(ROUNDS):
        prompts = [Conversation((*problems[n].prompt(EFFORT).messages, *said[n])) for n in going]
        replies = lab.chat_batch(prompts, sampling=GREEDY, max_tokens=MAX_TOKENS)
        still: list[int] = []
        for n, reply in zip(going, replies, strict=True):
            outputs = build_output_messages(reply, problems[n].tool_output)
            dropping = bool(outputs) and not keep
            said[n] += [m for m in reply.messages if not (dropping and m.channel == "analysis")]
            said[n] += outputs
            if outputs:
                still.append(n)
        if not (going := still):
            break
    return [problem.is_right(said[n]) for n, problem in enumerate(problems)]
