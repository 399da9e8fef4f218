"""From problems to groups of token ids: rendering, padding, and which tokens are learned.

A step learns several groups. The rows of one share the setting, the effort and the date, so that
the system and developer messages are the same: the model reads them once for all rows. Only what
the assistant writes after the last question is learned; padding at the right is harmless under
causality.
"""

from dataclasses import dataclass
from random import Random

import tiktoken
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from oss_lab.harmony.messages import EFFORTS, Conversation, Effort
from oss_lab.harmony.render import render
from oss_lab.nano.tasks.mix import MIXES
from oss_lab.nano.tasks.problem import Problem

GROUPS = 6
EFFORT_SHARES: dict[Effort, float] = {"low": 0.28, "medium": 0.32, "high": 0.4}
DATED_SHARE = 0.15  # groups whose system message tells a date


@dataclass(frozen=True)
class Group:
    """Token ids behind a shared opening, the next-token targets, and which of them count.

    Attributes:
        opening: the system and developer messages, for all rows.
        lengths: inputs of each row that are not padding.
    """

    opening: Int[Tensor, "1 opening"]
    inputs: Int[Tensor, "row seq"]
    targets: Int[Tensor, "row seq"]
    learned: Bool[Tensor, "row seq"]
    lengths: Int[Tensor, "row"]
    setting: str
    task: str
    effort: Effort


def groups_at(
    step: int, seed: int, tokens: int, encoding: tiktoken.Encoding, mix: str = "broad"
) -> list[Group]:
    """The groups of this step, about `tokens` tokens in all; (seed, step) fixes everything."""
    rng = Random(f"{seed}/{step}")
    return [draw_group(rng, tokens // GROUPS, encoding, mix) for _ in range(GROUPS)]


def draw_group(rng: Random, tokens: int, encoding: tiktoken.Encoding, mix: str) -> Group:
    """Rows of one task in one setting at one effort, about `tokens` tokens with their padding.

    Twice as many are drawn, and the shorter or the longer half is kept: less padding.
    """
    setting, task = MIXES[mix](rng)
    (effort,) = rng.choices(EFFORTS, [EFFORT_SHARES[e] for e in EFFORTS])
    date = draw_date(rng) if rng.random() < DATED_SHARE else None
    opening: list[int] = []
    rows: list[tuple[list[int], list[bool]]] = []
    longest = 0
    while len(rows) < 2 or longest * (len(rows) + 1) <= 2 * tokens:
        problem = setting.applied(rng, task.draw(rng, "train"))
        opening = opening or opening_of(problem, effort, date, encoding)
        rows.append(row_of(problem, effort, encoding))
        longest = max(longest, len(rows[-1][0]))
    rows.sort(key=lambda row: len(row[0]))
    half = len(rows) // 2
    kept = rng.choice((rows[:half], rows[half:]))
    return collate(opening, kept, encoding, setting.name, task.name, effort)


def draw_date(rng: Random) -> str:
    return f"20{rng.randrange(20, 40)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"


def opening_of(
    problem: Problem, effort: Effort, date: str | None, encoding: tiktoken.Encoding
) -> list[int]:
    """The tokens of the system and developer messages."""
    opening = Conversation(problem.opening(effort, date))
    return render(opening, encoding, mode="conversation").tokens


def row_of(
    problem: Problem, effort: Effort, encoding: tiktoken.Encoding
) -> tuple[list[int], list[bool]]:
    """Tokens from the first question to the last answer, and which of them are learned."""
    turns = problem.turns(effort)
    rendered = render(Conversation(turns), encoding, mode="training")
    asked = max(n for n, message in enumerate(turns) if message.role == "user")
    learned = [
        own and note.message > asked
        for own, note in zip(rendered.loss_mask, rendered.annotations, strict=True)
    ]
    return rendered.tokens, learned


def collate(
    opening: list[int],
    rows: list[tuple[list[int], list[bool]]],
    encoding: tiktoken.Encoding,
    setting: str,
    task: str,
    effort: Effort,
) -> Group:
    """Pad the rows to the longest."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.full((len(rows), width), encoding.encode_single_token("<|endoftext|>"))
    learned = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, (tokens, own) in enumerate(rows):
        ids[n, : len(tokens)] = torch.tensor(tokens)
        learned[n, : len(own)] = torch.tensor(own)
    return Group(
        opening=torch.tensor([opening]),
        inputs=ids[:, :-1],
        targets=ids[:, 1:],
        learned=learned[:, 1:],
        lengths=torch.tensor([len(tokens) - 1 for tokens, _ in rows]),
        setting=setting,
        task=task,
        effort=effort,
    )
