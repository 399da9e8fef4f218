"""How many questions can one conversation hold before the answers become wrong?

n conversations of TURNS unrelated questions at high effort: sums of two numbers, products of two
digits by one, and lists, which are the tasks that training also asks in later turns. Every answer
is nano's own, so a mistake stays in the conversation, as in a chat. The control asks each question
alone. Training has at most three turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.analysis.statistics.shares import Paired
from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony import Conversation, Message
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import BATCH, MAX_TOKENS, grade_problems
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import track_progress

TURNS = 12
EFFORT: Effort = "high"
TASKS: tuple[Task, ...] = (Products(lengths=(2, 1)), Sums(terms=2), Lists())


@dataclass(frozen=True)
class Turn:
    """The questions of one turn, from 1; `accuracy` has first the control, then the conversation.

    `prompt_tokens` is the mean number of tokens before the reply in the conversation.
    """

    turn: int
    effort: Effort
    seed: int
    prompt_tokens: float
    accuracy: Paired


def study_turns(lab: Lab, n: int, seed: int) -> list[Turn]:
    """Ask n conversations, turn by turn."""
    rng = Random(f"{seed}/turns")
    asked = [[rng.choice(TASKS).draw(rng, "held_out") for _ in range(n)] for _ in range(TURNS)]
    histories: list[tuple[Message, ...]] = [problem.opening(EFFORT) for problem in asked[0]]
    found: list[Turn] = []
    for turn, problems in enumerate(track_progress(asked, "turns", "turn", leave=True), 1):
        alone = grade_problems(lab, problems, EFFORT)
        prompts = [
            Conversation((*before, Message.of("user", problem.question)))
            for before, problem in zip(histories, problems, strict=True)
        ]
        right, lengths, histories = answer_turn(lab, prompts, problems)
        accuracy = Paired.of(alone, right)
        found.append(Turn(turn, EFFORT, seed, sum(lengths) / n, accuracy))
    return found


def answer_turn(
    lab: Lab, prompts: Sequence[Conversation], problems: Sequence[Problem]
) -> tuple[list[bool], list[int], list[tuple[Message, ...]]]:
    """Which answers are right, the tokens of each prompt, and the conversations so far."""
    right, lengths, histories = list[bool](), list[int](), list[tuple[Message, ...]]()
    for start in range(0, len(prompts), BATCH):
        group = prompts[start : start + BATCH]
        replies = lab.chat_batch(group, sampling=GREEDY, max_tokens=MAX_TOKENS)
        for reply, problem in zip(replies, problems[start : start + BATCH], strict=True):
            right.append(reply.stop != "length" and problem.is_right(reply.messages))
            lengths.append(len(reply.prompt_tokens))
            histories.append(reply.conversation.messages)
    return right, lengths, histories
