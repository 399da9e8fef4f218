"""Ask questions in batches, feed tool outputs back, and yield one outcome per question.

Questions of similar length share a batch, to keep padding small. The tokens sampled for a question
depend only on the seed, the effort and the question's position, not on the batch. A stopped run can
therefore resume with another batch size. (But matrix products of another size round differently. In
low precision this can change which of two nearly equal logits is larger.) A question is asked once;
several attempts per question are not supported.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import tiktoken

from oss_lab.checkpoint.fields import make_printable
from oss_lab.errors import LabError
from oss_lab.evaluation.question import Question, find_final_text
from oss_lab.harmony import Conversation, Message
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.record.calls import ROUNDS, build_output_messages
from oss_lab.record.reply import Reply, Stop
from oss_lab.record.token_labels import count_channel_tokens

BUCKET = 512  # questions are sorted by length within groups of this size
STOPS: tuple[Stop, ...] = get_args(Stop)


@dataclass(frozen=True)
class Outcome:
    """The result of one question at one effort.

    Attributes:
        index: of the question, from 0.
        name: the row of the score table that it counts toward.
        final: the final answer, None if there is none.
        analysis_tokens, tokens: generated tokens on the analysis channel and in total, over all
            rounds.
        calls: tool calls that got an output.
        stop: why the last reply ended: `return`, `endoftext`, `length` (truncated by max_tokens or
            the context; counts as wrong) or `call` (a tool call that has no output, or that came
            in the last of ROUNDS).
        diagnostics: how often each kind of diagnostic was reported, over all rounds.
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
    diagnostics: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Attempt:
    """One question in progress, with the messages generated so far."""

    index: int
    question: Question
    prompt: Conversation
    messages: list[Message] = field(default_factory=list)
    analysis_tokens: int = 0
    tokens: int = 0
    calls: int = 0
    outputs: list[Message] = field(default_factory=list)
    stop: Stop = "call"
    diagnostics: Counter[str] = field(default_factory=Counter)

    @property
    def conversation(self) -> Conversation:
        """The prompt and all messages after it."""
        return Conversation((*self.prompt.messages, *self.messages))

    def add_reply(self, reply: Reply, encoding: tiktoken.Encoding) -> None:
        """Add a reply to the conversation."""
        self.messages += reply.messages
        self.analysis_tokens += count_channel_tokens(reply, encoding)["analysis"]
        self.tokens += len(reply.tokens)
        self.stop = reply.stop
        self.diagnostics.update(each.kind.value for each in reply.diagnostics)
        self.outputs = build_output_messages(reply, self.question.tool_output)

    def answer_calls(self, lab: Lab) -> bool:
        """Add the tool outputs for the last reply's calls; True if the model should reply again."""
        if not self.outputs:
            return False
        self.messages += self.outputs
        self.calls += len(self.outputs)
        if count_tokens(lab, self.conversation) >= lab.config.max_context_length:
            self.stop = "length"
            return False
        return True

    def build_outcome(self, effort: Effort) -> Outcome:
        """The outcome of the question, after its last reply."""
        return Outcome(
            self.index,
            self.question.name,
            effort,
            self.stop != "length" and self.question.is_right(self.messages),
            find_final_text(self.messages),
            self.analysis_tokens,
            self.tokens,
            self.calls,
            self.stop,
            dict(self.diagnostics),
        )


def answer_questions(
    lab: Lab,
    questions: Sequence[Question],
    effort: Effort,
    *,
    batch: int,
    max_tokens: int,
    seed: int,
    done: Collection[int] = (),
) -> Iterator[Outcome]:
    """Yield the outcome of each question that is not in `done`, batch by batch.

    Args:
        max_tokens: of one reply; a question with tool calls gets several replies.
        seed: for sampling; without effect if the lab decodes greedily.
        done: indices of questions to skip.

    Raises:
        LabError: a prompt does not fit into the context; raised before anything is generated.
    """
    attempts = [
        Attempt(n, question, question.prompt(effort)) for n, question in enumerate(questions)
    ]
    order = sort_by_length([check_prompt_length(lab, attempt) for attempt in attempts])
    left_out = frozenset(done)
    todo = [place for place, index in enumerate(order) if index not in left_out]
    for group in split_batches(todo, batch):
        going = {place: attempts[order[place]] for place in group}
        for round in range(ROUNDS):
            reply_to(lab, going, derive_seed(seed, effort, round), batch, max_tokens)
            last = round == ROUNDS - 1
            going = {
                p: attempt for p, attempt in going.items() if not last and attempt.answer_calls(lab)
            }
            if not going:
                break
        for place in group:
            yield attempts[order[place]].build_outcome(effort)


def reply_to(lab: Lab, going: dict[int, Attempt], seed: int, batch: int, max_tokens: int) -> None:
    """Generate one reply for each attempt; the keys are positions, which sampling depends on."""
    for group in split_batches(list(going), batch):
        prompts = [going[place].conversation for place in group]
        replies = lab.chat_batch(prompts, group, seed=seed, max_tokens=max_tokens)
        for place, reply in zip(group, replies, strict=True):
            going[place].add_reply(reply, lab.tokenizer)


def split_batches(places: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Split positions into batches.

    >>> list(split_batches([0, 1, 2, 5, 6], 2))
    [[0, 1], [2, 5], [6]]
    """
    for start in range(0, len(places), batch):
        yield list(places[start : start + batch])


def sort_by_length(lengths: Sequence[int]) -> list[int]:
    """Question indices in the order of asking: within each BUCKET the longest prompt first.

    A batch that does not fit into memory then fails early.
    """
    return [
        index
        for start in range(0, len(lengths), BUCKET)
        for index in sorted(
            range(start, min(start + BUCKET, len(lengths))), key=lambda n: (-lengths[n], n)
        )
    ]


def derive_seed(seed: int, effort: Effort, round: int) -> int:
    """The seed of a round at an effort; each position samples from its own stream of this seed."""
    digest = hashlib.sha256(f"{seed}/{effort}/{round}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def check_prompt_length(lab: Lab, attempt: Attempt) -> int:
    """The number of tokens of the prompt; LabError if the context has no room for a reply."""
    length, context = count_tokens(lab, attempt.prompt), lab.config.max_context_length
    if length >= context:
        which = f"question {attempt.index + 1} ({make_printable(attempt.question.name)})"
        raise LabError(
            f"{which} takes {length:,} tokens, which leaves no room for an answer in the context"
            f" of {context:,}"
        )
    return length


def count_tokens(lab: Lab, conversation: Conversation) -> int:
    """The number of tokens of the conversation as rendered for the model."""
    return len(lab.render(conversation)[0])
