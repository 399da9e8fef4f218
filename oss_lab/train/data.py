"""From problems to batches of token ids: rendering, padding, and which tokens are learnt.

Only what the assistant writes is learnt; the prompt is context. A batch holds one effort, because
lengths differ much between efforts, and is padded at the right, where causality makes it harmless.
"""

from dataclasses import dataclass
from random import Random

import tiktoken
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from oss_lab.harmony.messages import EFFORTS, Conversation, Effort, Message, SystemContent
from oss_lab.harmony.render import render
from oss_lab.train.tasks import TRAINING_MIX, Problem

EFFORT_SHARES: dict[Effort, float] = {"low": 0.2, "medium": 0.3, "high": 0.5}
TYPICAL_LENGTH: dict[Effort, int] = {"low": 90, "medium": 120, "high": 220}  # tokens, padded
DATED_SHARE = 0.1  # conversations whose system message tells a date


@dataclass(frozen=True)
class Batch:
    """Token ids and the next-token targets; `learnt` marks the targets that count."""

    inputs: Int[Tensor, "batch seq"]
    targets: Int[Tensor, "batch seq"]
    learnt: Bool[Tensor, "batch seq"]
    effort: Effort


def draw_problem(rng: Random) -> Problem:
    tasks, shares = zip(*TRAINING_MIX, strict=True)
    return rng.choices(tasks, shares)[0].draw(rng, "train")


def prompt_of(question: str, effort: Effort, date: str | None = None) -> Conversation:
    """The default system message at this effort, and the question."""
    system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
    return Conversation.of(Message.of("system", system), Message.of("user", question))


def conversation_of(problem: Problem, effort: Effort, rng: Random) -> Conversation:
    """A whole training conversation; now and then the system message carries a date."""
    dated = rng.random() < DATED_SHARE
    date = f"20{rng.randrange(20, 40)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    prompt = prompt_of(problem.question, effort, date if dated else None)
    thought = problem.thoughts[effort]
    analysis = (Message.of("assistant", thought, channel="analysis"),) if thought else ()
    final = Message.of("assistant", problem.answer, channel="final")
    return Conversation.of(*prompt, *analysis, final)


def batch_at(step: int, seed: int, tokens: int, encoding: tiktoken.Encoding) -> Batch:
    """The batch of this step: about `tokens` tokens of one effort; (seed, step) fixes all of it."""
    rng = Random(f"{seed}/{step}")
    effort = rng.choices(EFFORTS, [EFFORT_SHARES[e] for e in EFFORTS])[0]
    rows = tokens // TYPICAL_LENGTH[effort]
    drawn = [conversation_of(draw_problem(rng), effort, rng) for _ in range(rows)]
    return collate(drawn, effort, encoding)


def collate(
    conversations: list[Conversation], effort: Effort, encoding: tiktoken.Encoding
) -> Batch:
    """Render for training and pad to the longest."""
    rendered = [render(each, encoding, mode="training") for each in conversations]
    width = max(len(each.tokens) for each in rendered)
    tokens = torch.full((len(rendered), width), encoding.encode_single_token("<|endoftext|>"))
    learnt = torch.zeros(len(rendered), width, dtype=torch.bool)
    for row, each in enumerate(rendered):
        tokens[row, : len(each.tokens)] = torch.tensor(each.tokens)
        learnt[row, : len(each.tokens)] = torch.tensor(each.loss_mask)
    return Batch(tokens[:, :-1], tokens[:, 1:], learnt[:, 1:], effort)
