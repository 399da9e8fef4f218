"""What a journal still lacks: asks those questions only, and writes each outcome down at once."""

from collections.abc import Collection, Iterator, Sequence

from oss_lab.evaluation.journal import Journal
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import Outcome, run
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
    """Yield the outcomes at this effort that the journal lacks; it has each before it is yielded.

    Args:
        batch, max_tokens, seed: as run takes them; max_tokens and seed those of the journal.
        left_out: indices of questions that are not asked at this effort.

    Raises:
        LabError: before anything is generated, for a prompt that does not fit into the context.
        OSError: the journal cannot be written.
    """
    done = {each.index for each in journal.at(effort)}
    for outcome in run(
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
