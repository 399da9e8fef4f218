"""Resume an evaluation: ask only the questions that its journal does not have yet."""

from collections.abc import Collection, Iterator, Sequence

from oss_lab.evaluation.journal import Journal
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import Outcome, answer_questions
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab


def resume(
    journal: Journal,
    lab: Lab,
    questions: Sequence[Question],
    effort: Effort,
    *,
    batch: int,
    max_tokens: int,
    seed: int,
    left_out: Collection[int] = (),
) -> Iterator[Outcome]:
    """Yield the outcomes at this effort that the journal lacks; each is saved before it is yielded.

    Args:
        batch, max_tokens, seed: as for `answer_questions`; seed and max_tokens as in the journal.
        left_out: indices of questions that are not asked at this effort.

    Raises:
        LabError: a prompt does not fit into the context; raised before anything is generated.
        OSError: the journal cannot be written.
    """
    done = {each.index for each in journal.outcomes_at(effort)}
    for outcome in answer_questions(
        lab,
        questions,
        effort,
        batch=batch,
        max_tokens=max_tokens,
        seed=seed,
        done=done.union(left_out),
    ):
        journal.add(outcome)
        yield outcome
