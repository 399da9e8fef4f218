"""Turn problems into groups of token ids: rendering, padding, and the loss mask.

A step trains on several groups. All rows of a group share the setting, the effort and the date. So
their system and developer messages are the same, and the model reads them only once. The loss
covers only what the assistant writes after the last question. Rows are padded on the right; with
causal attention, padding does not affect the tokens before it.
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
DATED_SHARE = 0.15  # share of groups whose system message has a date


@dataclass(frozen=True)
class RowGroup:
    """Rows of token ids after a shared opening, their next-token targets, and the loss mask.

    Attributes:
        opening: the tokens of the system and developer messages, shared by all rows.
        learned: which targets count toward the loss.
        lengths: the number of inputs of each row that are not padding.
    """

    opening: Int[Tensor, "1 opening"]
    inputs: Int[Tensor, "row seq"]
    targets: Int[Tensor, "row seq"]
    learned: Bool[Tensor, "row seq"]
    lengths: Int[Tensor, "row"]
    setting: str
    task: str
    effort: Effort


def draw_groups(
    step: int, seed: int, tokens: int, encoding: tiktoken.Encoding, mix: str = "broad"
) -> list[RowGroup]:
    """The groups of this step, about `tokens` tokens in total; decided by (seed, step) alone."""
    rng = Random(f"{seed}/{step}")
    return [draw_group(rng, tokens // GROUPS, encoding, mix) for _ in range(GROUPS)]


def draw_group(rng: Random, tokens: int, encoding: tiktoken.Encoding, mix: str) -> RowGroup:
    """Rows of one task in one setting at one effort, about `tokens` tokens including padding.

    To reduce padding, twice as many rows are drawn, and the shorter or the longer half is used.
    """
    setting, task = MIXES[mix](rng)
    (effort,) = rng.choices(EFFORTS, [EFFORT_SHARES[e] for e in EFFORTS])
    date = draw_date(rng) if rng.random() < DATED_SHARE else None
    opening: list[int] = []
    rows: list[tuple[list[int], list[bool]]] = []
    longest = 0
    while len(rows) < 2 or longest * (len(rows) + 1) <= 2 * tokens:
        problem = setting.apply(rng, task.draw(rng, "train"))
        opening = opening or encode_opening(problem, effort, date, encoding)
        rows.append(encode_row(problem, effort, encoding))
        longest = max(longest, len(rows[-1][0]))
    rows.sort(key=lambda row: len(row[0]))
    half = len(rows) // 2
    kept = rng.choice((rows[:half], rows[half:]))
    return collate(opening, kept, encoding, setting.name, task.name, effort)


def draw_date(rng: Random) -> str:
    return f"20{rng.randrange(20, 40)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"


def encode_opening(
    problem: Problem, effort: Effort, date: str | None, encoding: tiktoken.Encoding
) -> list[int]:
    """The tokens of the system and developer messages."""
    opening = Conversation(problem.opening(effort, date))
    return render(opening, encoding, mode="conversation").tokens


def encode_row(
    problem: Problem, effort: Effort, encoding: tiktoken.Encoding
) -> tuple[list[int], list[bool]]:
    """Tokens from the first question to the last answer, and which of them count in the loss."""
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
) -> RowGroup:
    """Pad the rows to the longest and build the group."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.full((len(rows), width), encoding.encode_single_token("<|endoftext|>"))
    learned = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, (tokens, own) in enumerate(rows):
        ids[n, : len(tokens)] = torch.tensor(tokens)
        learned[n, : len(own)] = torch.tensor(own)
    return RowGroup(
        opening=torch.tensor([opening]),
        inputs=ids[:, :-1],
        targets=ids[:, 1:],
        learned=learned[:, 1:],
        lengths=torch.tensor([len(tokens) - 1 for tokens, _ in rows]),
        setting=setting,
        task=task,
        effort=effort,
    )
