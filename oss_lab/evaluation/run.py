"""Questions to outcomes: batches of replies, tool outputs fed back, one outcome a question.

Questions of similar length are answered together, so that little is padded. What is drawn for a
question depends on the seed, the effort and its place alone, not on the batch, so that a run may be
stopped and go on with another batch size. (Matrix products of another size round differently; in
low precision that can turn a near-tie.) Left out: repeated attempts at a question.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import tiktoken

from oss_lab.checkpoint.fields import printable
from oss_lab.errors import LabError
from oss_lab.evaluation.question import Question, final_text
from oss_lab.harmony import Conversation, Message, render
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.record.calls import ROUNDS, outputs_of
from oss_lab.record.reply import Reply, Stop
from oss_lab.record.token_labels import channel_counts

BUCKET = 512  # questions among which those of similar length are brought together
STOPS: tuple[Stop, ...] = get_args(Stop)


@dataclass(frozen=True)
class Outcome:
    """What came of one question at one effort.

    Attributes:
        index: of the question, from 0.
        name: the row of the table that it counts toward.
        final: the final answer, None if there is none.
        analysis_tokens, tokens: generated on the analysis channel and in all, in every round.
        calls: of tools that were answered.
        stop: why the last reply ended: `return`, `endoftext`, `length` (cut off by max_tokens or
            the context; never right), `call` (a call that could not be answered, or that came in
            the last of ROUNDS).
    """

    index: int
    name: str
    effort: Effort
    right: bool
    final: str | None
    analysis_tokens: int
    tokens: int
    calls: int
    stop: Stop


@dataclass
class Attempt:
    """One question on its way: what was said so far."""

    index: int
    question: Question
    prompt: Conversation
    said: list[Message] = field(default_factory=list)
    analysis_tokens: int = 0
    tokens: int = 0
    calls: int = 0
    outputs: list[Message] = field(default_factory=list)
    stop: Stop = "call"

    @property
    def conversation(self) -> Conversation:
        """The prompt and everything behind it."""
        return Conversation((*self.prompt.messages, *self.said))

    def hear(self, reply: Reply, encoding: tiktoken.Encoding) -> None:
        """Take a reply."""
        self.said += reply.messages
        self.analysis_tokens += channel_counts(reply, encoding)["analysis"]
        self.tokens += len(reply.tokens)
        self.stop = reply.stop
        self.outputs = outputs_of(reply, self.question.tool_output)

    def answer_calls(self, lab: Lab) -> bool:
        """Add the outputs of the last reply's calls; True if the model is to go on."""
        if not self.outputs:
            return False
        self.said += self.outputs
        self.calls += len(self.outputs)
        if token_count(lab, self.conversation) >= lab.config.max_context_length:
            self.stop = "length"
            return False
        return True

    def outcome(self, effort: Effort) -> Outcome:
        """What came of the question, once its last reply is heard."""
        return Outcome(
            self.index,
            self.question.name,
            effort,
            self.stop != "length" and self.question.is_right(self.said),
            final_text(self.said),
            self.analysis_tokens,
            self.tokens,
            self.calls,
            self.stop,
        )


def run(
    lab: Lab,
    questions: Sequence[Question],
    effort: Effort,
    *,
    batch: int,
    max_tokens: int,
    seed: int,
    done: Collection[int] = (),
) -> Iterator[Outcome]:
    """Yield the outcome of each question but those done, a batch at a time.

    Args:
        max_tokens: of one reply; a question whose calls are answered gets several.
        seed: for the draws, where the lab's sampling draws any.
        done: indices of questions to leave out.

    Raises:
        LabError: before anything is generated, for a prompt that does not fit into the context.
    """
    attempts = [
        Attempt(n, question, question.prompt(effort)) for n, question in enumerate(questions)
    ]
    order = by_length([prompt_length(lab, attempt) for attempt in attempts])
    left_out = frozenset(done)
    todo = [place for place, index in enumerate(order) if index not in left_out]
    for group in grouped(todo, batch):
        going = {place: attempts[order[place]] for place in group}
        for round in range(ROUNDS):
            reply_to(lab, going, seed_of(seed, effort, round), batch, max_tokens)
            last = round == ROUNDS - 1
            going = {
                p: attempt for p, attempt in going.items() if not last and attempt.answer_calls(lab)
            }
            if not going:
                break
        for place in group:
            yield attempts[order[place]].outcome(effort)


def reply_to(lab: Lab, going: dict[int, Attempt], seed: int, batch: int, max_tokens: int) -> None:
    """One reply for each attempt; keys are places in the order, which say what is drawn."""
    for group in grouped(list(going), batch):
        prompts = [going[place].conversation for place in group]
        replies = lab.chat_batch(prompts, group, seed=seed, max_tokens=max_tokens)
        for place, reply in zip(group, replies, strict=True):
            going[place].hear(reply, lab.tokenizer)


def grouped(places: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Batches of places.

    >>> list(grouped([0, 1, 2, 5, 6], 2))
    [[0, 1], [2, 5], [6]]
    """
    for start in range(0, len(places), batch):
        yield list(places[start : start + batch])


def by_length(lengths: Sequence[int]) -> list[int]:
    """Indices in the order of answering: within each BUCKET the longest prompts first, so that
    what does not fit into memory fails at once."""
    return [
        index
        for start in range(0, len(lengths), BUCKET)
        for index in sorted(
            range(start, min(start + BUCKET, len(lengths))), key=lambda n: (-lengths[n], n)
        )
    ]


def seed_of(seed: int, effort: Effort, round: int) -> int:
    """The seed of a round at an effort; each place has a stream of its own under it."""
    digest = hashlib.sha256(f"{seed}/{effort}/{round}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def prompt_length(lab: Lab, attempt: Attempt) -> int:
    """Tokens of the prompt, or LabError if no reply fits behind it."""
    length, context = token_count(lab, attempt.prompt), lab.config.max_context_length
    if length >= context:
        which = f"question {attempt.index + 1} ({printable(attempt.question.name)})"
        raise LabError(
            f"{which} takes {length:,} tokens; the context is {context:,} and has no room for an"
            " answer"
        )
    return length


def token_count(lab: Lab, conversation: Conversation) -> int:
    """Tokens of a conversation as the model is given it."""
    return len(render(conversation, lab.tokenizer).tokens)
