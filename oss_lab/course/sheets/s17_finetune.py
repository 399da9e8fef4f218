"""Exercises of 17_finetune: the low-rank product, the loss mask, packed rows."""

from collections.abc import Iterator
from typing import Any

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_low_rank(x, weight, down, up, alpha):
    """What a linear layer with a low-rank part computes.

    x: [tokens columns]. weight: [rows columns], frozen.
    down: [rank columns] and up: [rows rank], trained. alpha: a number.
    Returns [tokens rows]: W x + alpha / rank * up (down x), without making up @ down.
    """
    inner = x @ down.T
    return x @ weight.T + alpha / down.shape[0] * (inner @ up.T)


def not_scaled(x, weight, down, up, alpha):
    """You add up (down x) unscaled. The factor alpha / rank keeps the size of the change about
    the same when you choose another rank.
    """
    return x @ weight.T + x @ down.T @ up.T


def alpha_alone(x, weight, down, up, alpha):
    """You multiply by alpha and do not divide by the rank: a sum over more inner numbers then
    becomes a larger change.
    """
    return x @ weight.T + alpha * (x @ down.T @ up.T)


def root_of_the_rank(x, weight, down, up, alpha):
    """You divide by the root of the rank. That is another method, rank-stabilized LoRA; PEFT
    calls it `use_rslora`.
    """
    return x @ weight.T + alpha / down.shape[0] ** 0.5 * (x @ down.T @ up.T)


def frozen_part_missing(x, weight, down, up, alpha):
    """You return only the change. The frozen matrix does its work, too."""
    return my_low_rank(x, torch.zeros_like(weight), down, up, alpha)


def frozen_part_scaled(x, weight, down, up, alpha):
    """You scale the frozen product as well. The factor applies to the low-rank part only: with
    up = 0 the layer must compute what it did before.
    """
    return alpha / down.shape[0] * (x @ weight.T + x @ down.T @ up.T)


def divided_by_columns(x, weight, down, up, alpha):
    """You divide by the number of columns. The rank is the other axis of `down`."""
    return x @ weight.T + alpha / down.shape[1] * (x @ down.T @ up.T)


def low_rank_cases() -> Iterator[tuple]:
    """Several ranks and shapes, one token, and an untrained `up` of zeros."""
    generator = torch.Generator().manual_seed(0)
    for tokens, rows, columns, rank, alpha in (
        (5, 6, 4, 2, 16.0),
        (1, 3, 7, 4, 8.0),
        (8, 5, 5, 3, 1.0),
    ):
        x = torch.randn(tokens, columns, generator=generator)
        weight = torch.randn(rows, columns, generator=generator)
        down = torch.randn(rank, columns, generator=generator)
        yield x, weight, down, torch.randn(rows, rank, generator=generator), alpha
        yield x.clone(), weight.clone(), down.clone(), torch.zeros(rows, rank), alpha


def my_learned(notes, roles, channels):
    """Which tokens of a conversation with one question count in the loss.

    notes: one tuple (message, role, channel, field) for each token. `message` is the number of its
        message; `channel` is None for a message without one; `field` is "start" (<|start|>),
        "role", "channel", "recipient", "message" (<|message|>), "content" or "end".
    roles: whose messages are learned. channels: which of the assistant's; an assistant message
        without a channel counts as "final". Other roles are not limited by channels.
    Start and role of a message are in the prompt, unless it is an assistant message right after
    another one, which the model begins itself.
    Returns a list of booleans.
    """
    author = {message: role for message, role, _, _ in notes}
    learned = []
    for message, role, channel, field in notes:
        own = role == "assistant"
        wanted = role in roles and (not own or (channel or "final") in channels)
        begun = own and author.get(message - 1) == "assistant"
        learned.append(wanted and (begun or field not in ("start", "role")))
    return learned


def content_only(notes, roles, channels):
    """You count only the text. The model then never learns to name a channel or to end its
    message.
    """
    pairs = zip(my_learned(notes, roles, channels), notes, strict=True)
    return [learned and note[3] == "content" for learned, note in pairs]


def prompt_learned(notes, roles, channels):
    """You also count `<|start|>assistant` after a question or a tool's output. These tokens are in
    the prompt, so the model never has to write them.
    """
    learned = []
    for _, role, channel, field in notes:
        own = role == "assistant"
        wanted = role in roles and (not own or (channel or "final") in channels)
        learned.append(wanted and (own or field not in ("start", "role")))
    return learned


def start_never_learned(notes, roles, channels):
    """You never count `<|start|>` and the role. After its own analysis, the model must begin the
    next message itself.
    """
    pairs = zip(my_learned(notes, roles, channels), notes, strict=True)
    return [learned and note[3] not in ("start", "role") for learned, note in pairs]


def end_missing(notes, roles, channels):
    """You leave out the end token. A model that never learns it does not stop."""
    pairs = zip(my_learned(notes, roles, channels), notes, strict=True)
    return [learned and note[3] != "end" for learned, note in pairs]


def channels_for_everybody(notes, roles, channels):
    """You apply the channels to every role. Users and tools do not choose among the assistant's
    channels.
    """
    kept = [note[1] == "assistant" or (note[2] or "final") in channels for note in notes]
    learned = my_learned(notes, roles, channels)
    return [a and b for a, b in zip(learned, kept, strict=True)]


def no_channel_left_out(notes, roles, channels):
    """You leave out assistant messages without a channel. They count as final."""
    pairs = zip(my_learned(notes, roles, channels), notes, strict=True)
    return [learned and not (note[1] == "assistant" and note[2] is None) for learned, note in pairs]


def roles_ignored(notes, roles, channels):
    """You always learn the assistant and nobody else. Use `roles`."""
    return my_learned(notes, ("assistant",), channels)


def channels_ignored(notes, roles, channels):
    """You ignore `channels`. With channels=("final",), for instance, the thoughts are read and not
    learned.
    """
    return my_learned(notes, roles, {note[2] for note in notes} | {"final"})


def learned_cases() -> Iterator[tuple]:
    """A call with its output, thoughts and answer, and an answer without a channel."""
    question = ("user", None, 3)
    with_call = [
        ("system", None, 2),
        ("developer", None, 2),
        question,
        ("assistant", "analysis", 2),
        ("assistant", "commentary", 1),
        ("tool", "commentary", 1),
        ("assistant", "analysis", 1),
        ("assistant", "final", 2),
    ]
    plain = [("system", None, 1), question, ("assistant", None, 1)]
    for chosen, only in (
        (("assistant",), ("analysis", "commentary", "final")),
        (("assistant",), ("final",)),
        (("assistant",), ("analysis",)),
        (("user", "assistant"), ("commentary",)),
        (("user", "tool"), ("final",)),
    ):
        yield write_notes(with_call), chosen, only
        yield write_notes(plain), chosen, only


def write_notes(messages: list[tuple[str, str | None, int]]) -> list[tuple[Any, ...]]:
    """The notes of messages, each given as (role, channel, tokens of content)."""
    notes: list[tuple[Any, ...]] = []
    for number, (role, channel, count) in enumerate(messages):
        fields = ["start", "role", *(["channel"] * bool(channel)), "message"]
        for field in (*fields, *["content"] * count, "end"):
            notes.append((number, role, channel, field))
    return notes


def my_places(lengths, width):
    """Where each token of a packed row belongs.

    lengths: the number of tokens of each example, which follow one another in a row of `width`
        tokens. What is left of the row is padding.
    Returns two lists of `width` numbers: the position of each token in its own example, and the
    first place in the row that it may see. Padding has position -1, and its first place is `width`:
    it sees nothing.
    """
    positions, starts = [], []
    for length in lengths:
        starts += [len(positions)] * length
        positions += range(length)
    rest = width - len(positions)
    return positions + [-1] * rest, starts + [width] * rest


def positions_continue(lengths, width):
    """Your positions continue over the whole row. The model would then compute another rotation
    for the second example than it does alone: begin each example at position 0.
    """
    used = sum(lengths)
    return [*range(used), *[-1] * (width - used)], my_places(lengths, width)[1]


def everything_visible(lengths, width):
    """Your tokens see the examples before theirs. The second answer would be learned with the
    first question in view: a token sees its own example only.
    """
    used = sum(lengths)
    return my_places(lengths, width)[0], [0] * used + [width] * (width - used)


def padding_sees_the_row(lengths, width):
    """Your padding sees the row. It belongs to no example: nothing is visible from there."""
    positions, starts = my_places(lengths, width)
    used = sum(lengths)
    return positions, starts[:used] + [0] * (width - used)


def padding_at_zero(lengths, width):
    """Your padding has position 0, as the first token of an example has. Mark it with -1."""
    positions, starts = my_places(lengths, width)
    return [max(position, 0) for position in positions], starts


def padding_missing(lengths, width):
    """Your lists end where the examples end. Rows of one batch need the same width."""
    positions, starts = my_places(lengths, width)
    used = sum(lengths)
    return positions[:used], starts[:used]


def places_cases() -> Iterator[tuple]:
    """One example, several, a full row, and a row of padding only."""
    for lengths, width in (([3], 5), ([4, 2, 3], 12), ([2, 2], 4), ([1, 1, 1], 8), ([], 3)):
        yield list(lengths), width


SHEET = Sheet(
    lesson="17_finetune",
    title="Exercises: fine-tuning",
    text="Read [17_finetune](../17_finetune.ipynb) first.",
    exercises=(
        Exercise(
            title="A low-rank part",
            text=(
                "Compute a frozen linear layer with its low-rank part. Which of the two products"
                " with `down` and `up` comes first, so that no large matrix is made?"
            ),
            solution=my_low_rank,
            cases=low_rank_cases,
            misconceptions=(
                not_scaled,
                alpha_alone,
                root_of_the_rank,
                frozen_part_missing,
                frozen_part_scaled,
                divided_by_columns,
            ),
            hints=(
                "There are two terms: the frozen product, and a change that is 0 as long as `up`"
                " is.",
                "`x @ down.T` is [tokens rank]; times `up.T` it is [tokens rows].",
                "The rank is down.shape[0]. Add alpha / rank times x @ down.T @ up.T to"
                " x @ weight.T.",
            ),
            minutes=6,
            difficulty=1,
        ),
        Exercise(
            title="What counts in the loss",
            text=(
                "Fine-tuning lowers the loss on chosen tokens only. Choose them by role and"
                " channel, and leave out what the model never has to write."
            ),
            solution=my_learned,
            cases=learned_cases,
            misconceptions=(
                content_only,
                prompt_learned,
                start_never_learned,
                end_missing,
                channels_for_everybody,
                no_channel_left_out,
                roles_ignored,
                channels_ignored,
            ),
            hints=(
                "Decide in two steps: whether the message is learned at all, and whether this token"
                " of it was in the prompt.",
                "Collect the role of each message in a dict first; the message before has the"
                " number `message - 1`.",
                "wanted: the role is in roles, and for the assistant (channel or 'final') is in"
                " channels. A token of the fields start and role counts only if this and the"
                " previous message are both the assistant's.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="Pack a row",
            text=(
                "Short examples share a row, so little of a batch is padding. Give every token its"
                " position and what it may see, so that each example is computed as if it were"
                " alone."
            ),
            solution=my_places,
            cases=places_cases,
            misconceptions=(
                positions_continue,
                everything_visible,
                padding_sees_the_row,
                padding_at_zero,
                padding_missing,
            ),
            hints=(
                "Go through the examples, and remember how many tokens are in the row so far.",
                "An example of length n adds n numbers to both lists: 0 ... n - 1, and n times"
                " the place of its first token.",
                "After the examples add -1 and `width` for each of the width - used places that"
                " are left.",
            ),
            minutes=8,
            difficulty=1,
        ),
    ),
)
