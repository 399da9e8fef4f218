"""Draw held-out problems, ask them, and grade the replies."""

from collections.abc import Callable, Sequence
from random import Random

from oss_lab.engine.sampling import GREEDY
from oss_lab.evaluation.run import answer_questions
from oss_lab.harmony import Conversation, Rendered, render
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.settings import Setting, make_plain
from oss_lab.record.reply import Reply

BATCH = 256
MAX_TOKENS = 400  # of one reply


def draw_problems(
    task: Task, n: int, rng: Random, setting: Callable[[Random], Setting] = make_plain
) -> list[Problem]:
    """n held-out problems; the setting is drawn separately for each."""
    return [setting(rng).apply(rng, task.draw(rng, "held_out")) for _ in range(n)]


def grade_problems(lab: Lab, problems: Sequence[Problem], effort: Effort) -> list[bool]:
    """Which problems the model gets right, decoded with the lab's sampling (greedy for nano)."""
    outcomes = answer_questions(lab, problems, effort, batch=BATCH, max_tokens=MAX_TOKENS, seed=0)
    right = {outcome.index: outcome.right for outcome in outcomes}
    return [right[n] for n in range(len(problems))]


def render_from_question(lab: Lab, conversation: Conversation) -> tuple[Rendered, list[int]]:
    """A rendered conversation with its reply, and the positions from the first question on. The
    messages before are the same for all problems."""
    rendered = render(conversation, lab.tokenizer, mode="training")
    begin = next(n for n, message in enumerate(conversation) if message.role == "user")
    return rendered, [p for p, note in enumerate(rendered.annotations) if note.message >= begin]


def final_answer(reply: Reply) -> str:
    """The final answer without surrounding white space; "" if there is none."""
    return (reply.final or "").strip()


def reply_to_problems(lab: Lab, problems: Sequence[Problem], effort: Effort) -> list[Reply]:
    """A greedy reply to each problem."""
    prompts = [problem.prompt(effort) for problem in problems]
    return [
        reply
        for start in range(0, len(prompts), BATCH)
        for reply in lab.chat_batch(
            prompts[start : start + BATCH], sampling=GREEDY, max_tokens=MAX_TOKENS
        )
    ]
