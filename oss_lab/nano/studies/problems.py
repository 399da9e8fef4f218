"""Held-out problems: drawn, asked, and which of them are right."""

from collections.abc import Callable, Sequence
from random import Random

from oss_lab.engine.sampling import GREEDY
from oss_lab.evaluation.run import run
from oss_lab.harmony import Conversation, Rendered, render
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.settings import Setting, plain
from oss_lab.record.reply import Reply

BATCH = 256
MAX_TOKENS = 400  # of one reply


def drawn(
    task: Task, n: int, rng: Random, setting: Callable[[Random], Setting] = plain
) -> list[Problem]:
    """n held-out problems, each in a setting of its own."""
    return [setting(rng).applied(rng, task.draw(rng, "held_out")) for _ in range(n)]


def marks(lab: Lab, problems: Sequence[Problem], effort: Effort) -> list[bool]:
    """Which problems the model gets right; decoding is the lab's, greedy for nano."""
    outcomes = run(lab, problems, effort, batch=BATCH, max_tokens=MAX_TOKENS, seed=0)
    right = {outcome.index: outcome.right for outcome in outcomes}
    return [right[n] for n in range(len(problems))]


def read_from_question(lab: Lab, conversation: Conversation) -> tuple[Rendered, list[int]]:
    """A conversation with what the assistant should say, and its positions from the first question
    on: the messages before are the same for all."""
    rendered = render(conversation, lab.tokenizer, mode="training")
    begin = next(n for n, message in enumerate(conversation) if message.role == "user")
    return rendered, [p for p, note in enumerate(rendered.annotations) if note.message >= begin]


def answer_of(reply: Reply) -> str:
    """The final answer, without white space around it; "" if there is none."""
    return (reply.final or "").strip()


def replied(lab: Lab, problems: Sequence[Problem], effort: Effort) -> list[Reply]:
    """A greedy reply to each problem."""
    prompts = [problem.prompt(effort) for problem in problems]
    return [
        reply
        for start in range(0, len(prompts), BATCH)
        for reply in lab.chat_batch(
            prompts[start : start + BATCH], sampling=GREEDY, max_tokens=MAX_TOKENS
        )
    ]
