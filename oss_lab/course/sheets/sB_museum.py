"""Exercises of B_museum: three instruments. The length of a test, chosen inputs, a paired test."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from oss_lab.course.exercise import Exercise, Sheet
from oss_lab.model.attention import visible_keys
from oss_lab.model.moe import clamped_swiglu

Mask = Callable[[Tensor, Tensor, int | None], Tensor]


def my_shortest_length(right, suspect, window, longest):
    """The length of the shortest text in which two masks differ, or None if none does.

    right, suspect: functions (query_positions, key_positions, window) -> [rows seq key], True where
    a key is visible, as in 04_attention. Texts have 1 to `longest` tokens, at positions 0, 1, 2 ...
    """
    for length in range(1, longest + 1):
        positions = torch.arange(length)[None]
        masks = [mask(positions, positions, window) for mask in (right, suspect)]
        if not torch.equal(*masks):
            return length
    return None


def position_as_length(right, suspect, window, longest):
    """You return the position of the first token with a difference. Positions start at 0, so the
    text that contains this token has one token more.
    """
    found = my_shortest_length(right, suspect, window, longest)
    return None if found is None else found - 1


def always_the_window(right, suspect, window, longest):
    """You return the window plus 1 without looking at the masks. That is the right length for a
    window that is too large; a window that is too small shows earlier.
    """
    return window + 1 if window < longest else None


def counts_of_keys(right, suspect, window, longest):
    """You compare how many keys are visible. Two masks can show equally many keys and not the same
    ones: compare them key by key.
    """
    for length in range(1, longest + 1):
        positions = torch.arange(length)[None]
        if len({int(mask(positions, positions, window).sum()) for mask in (right, suspect)}) > 1:
            return length
    return None


def longest_left_out(right, suspect, window, longest):
    """You do not try the longest text. `range` ends before its second argument."""
    return my_shortest_length(right, suspect, window, longest - 1)


def longest_only(right, suspect, window, longest):
    """You compare texts of one length only, the longest. Try every length, from 1 on."""
    differs = my_shortest_length(right, suspect, window, longest)
    return None if differs is None else longest


def shifted_mask(queries, keys, window):
    """A mask that shows the key before each visible one instead, from the window on."""
    back = queries[:, :, None] - keys[:, None, :]
    late = queries[:, :, None] >= window
    right = visible_keys(queries, keys, window)
    return torch.where(late, (back >= 1) & (back <= window), right)


def widen(by: int) -> Mask:
    """A mask whose window is larger by this number of keys."""
    return lambda queries, keys, window: visible_keys(queries, keys, window and window + by)


def length_cases() -> Iterator[tuple]:
    """Windows that are too large, too small and right; a shifted mask; texts that are too short."""
    for window in (4, 7):
        for by in (1, 3, -1, -2, 0):
            yield visible_keys, widen(by), window, 12
        yield visible_keys, shifted_mask, window, 12
        yield visible_keys, widen(1), window, window + 1
        yield visible_keys, widen(1), window, window


def my_clamps(activate, limit):
    """Which clamps an activation has. It is a black box: call it and look at what it returns.

    activate(gate, up): like the SwiGLU of 05_experts, with or without each of its clamps at
    `limit`; gate and up are tensors of the same shape.
    Returns four booleans: gate limited from above, gate from below, up from above, up from below.
    """

    def is_flat(gate, up):
        inside, beyond = activate(torch.tensor(gate), torch.tensor(up))
        return abs(float(beyond - inside)) < 1e-6

    return (
        is_flat([limit, limit + 1], [1.0, 1.0]),
        is_flat([-limit, -limit - 1], [1.0, 1.0]),
        is_flat([1.0, 1.0], [limit, limit + 1]),
        is_flat([1.0, 1.0], [-limit, -limit - 1]),
    )


def inside_the_limits(activate, limit):
    """Your inputs do not go beyond the limit, so no clamp acts, and an activation without clamps
    gives the same. Compare an input at the limit with one beyond it.
    """
    return False, False, False, False


def far_below(activate, limit):
    """Your gate is far below the limit. There the sigmoid is so small that the output is 0 with a
    clamp and without: compare a gate at -limit with one a little lower.
    """
    above, _, up_above, up_below = my_clamps(activate, limit)
    return above, True, up_above, up_below


def both_sides_from_one(activate, limit):
    """You tested one side of each and took the other for the same. In gpt-oss the gate is limited
    from above only, and up on both sides: test all four.
    """
    above, _, up_above, _ = my_clamps(activate, limit)
    return above, above, up_above, up_above


def gate_and_up_swapped(activate, limit):
    """You tested gate and up in each other's place. The gate is the first argument of `activate`
    and up is the second.
    """
    gate_above, gate_below, up_above, up_below = my_clamps(activate, limit)
    return up_above, up_below, gate_above, gate_below


def up_is_minus_one(activate, limit):
    """You test the gate with up = -1. The factor up + 1 is then 0, so every gate gives 0, and every
    gate looks limited.
    """
    _, _, up_above, up_below = my_clamps(activate, limit)
    return True, True, up_above, up_below


def gate_is_zero(activate, limit):
    """You test up with gate = 0. The output is then 0 for every up, so every up looks limited."""
    above, below, _, _ = my_clamps(activate, limit)
    return above, below, True, True


def build_activation(clamps: tuple[bool, bool, bool, bool], limit: float) -> Callable:
    """A SwiGLU with these clamps, in the order of `my_clamps`."""
    ends = [limit if each else float("inf") for each in clamps]
    high, low, up_high, up_low = ends

    def activate(gate: Tensor, up: Tensor) -> Tensor:
        inside = gate.double().clamp(-low, high), up.double().clamp(-up_low, up_high)
        return clamped_swiglu(*inside, 1.702, float("inf"))

    return activate


def clamp_cases() -> Iterator[tuple]:
    for number in range(16):
        clamps = (bool(number & 1), bool(number & 2), bool(number & 4), bool(number & 8))
        yield build_activation(clamps, 2.0), 2.0
    yield build_activation((True, False, True, True), 4.0), 4.0


def my_sign_test(right, suspect):
    """How often chance alone would make a suspect look at least this much worse.

    right, suspect: lists of booleans, whether each of two models solved a problem; both were asked
    the same problems in the same order. Only problems that exactly one of them solved count. If the
    two were equally good, each of these would be lost or won by the suspect as by a fair coin.
    Returns the probability of at least as many losses, a float; 1 if no problem counts.
    """
    pairs = list(zip(right, suspect, strict=True))
    lost = sum(ours and not its for ours, its in pairs)
    won = sum(its and not ours for ours, its in pairs)
    n = lost + won
    return sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n


def with_ties(right, suspect):
    """You also count problems that both solved or both missed. They say nothing about which model
    is better: leave them out.
    """
    lost = sum(ours and not its for ours, its in zip(right, suspect, strict=True))
    n = len(right)
    return sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n


def more_losses_only(right, suspect):
    """You sum from one loss more than there were. "At least as many" includes the number that was
    observed.
    """
    pairs = list(zip(right, suspect, strict=True))
    lost = sum(ours and not its for ours, its in pairs)
    n = sum(ours != its for ours, its in pairs)
    return sum(math.comb(n, k) for k in range(lost + 1, n + 1)) / 2**n


def exactly_as_many(right, suspect):
    """You return the probability of exactly this number of losses. Any single number is unlikely if
    there are many problems; add the probabilities of all larger numbers.
    """
    pairs = list(zip(right, suspect, strict=True))
    n = sum(ours != its for ours, its in pairs)
    return math.comb(n, sum(ours and not its for ours, its in pairs)) / 2**n


def wins_counted(right, suspect):
    """You count the problems that the suspect won. The question is whether it is worse, so count
    those that it lost.
    """
    return my_sign_test(suspect, right)


def order_ignored(right, suspect):
    """You compare only how many problems each solved. The two were asked the same problems: compare
    them problem by problem.
    """
    return my_sign_test(sorted(right), sorted(suspect))


def marks_cases() -> Iterator[tuple]:
    """Lost and won problems among ties: more lost, more won, as many, none, and all."""
    for lost, won, both, neither in (
        (5, 1, 6, 2), (1, 5, 3, 3), (3, 3, 4, 0), (0, 0, 8, 2), (4, 0, 0, 0), (9, 2, 20, 1),
    ):  # fmt: skip
        pairs = [(True, False)] * lost + [(False, True)] * won
        pairs = [(True, True)] * both + pairs + [(False, False)] * neither
        yield [ours for ours, _ in pairs], [its for _, its in pairs]


SHEET = Sheet(
    lesson="B_museum",
    title="Exercises: the bug museum",
    text=(
        "Read [B_museum](../B_museum.ipynb) first. Here you write instruments, not parts of nano:"
        " each one finds bugs that replies do not show."
    ),
    exercises=(
        Exercise(
            title="The length of a test",
            text=(
                "How long must a text be to show a wrong mask? Find the shortest length in which"
                " two masks differ. `window` is passed on to both."
            ),
            solution=my_shortest_length,
            cases=length_cases,
            misconceptions=(
                position_as_length,
                always_the_window,
                counts_of_keys,
                longest_left_out,
                longest_only,
            ),
            hints=(
                "Try one length after the other, and stop at the first difference.",
                "The positions of a text of n tokens are torch.arange(n)[None], of shape [1 n]."
                " They are the queries and the keys.",
                "for length in 1 to longest: compute both masks; if torch.equal says no, return the"
                " length. After the loop return None.",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="Chosen inputs",
            text=(
                "A gate that is clamped on both sides changes no reply of nano and no logit beyond"
                " rounding. Find such a mistake with inputs of your own: report which clamps an"
                " activation has. The cases have limits from 2 to 4."
            ),
            solution=my_clamps,
            cases=clamp_cases,
            misconceptions=(
                inside_the_limits,
                far_below,
                both_sides_from_one,
                gate_and_up_swapped,
                up_is_minus_one,
                gate_is_zero,
            ),
            hints=(
                "A clamp makes the curve flat: compare the output at the limit with the output one"
                " step beyond it.",
                "activate(torch.tensor([limit, limit + 1]), torch.tensor([1.0, 1.0])) gives two"
                " numbers. Keep the other argument fixed, away from 0 and from -1.",
                "Four such pairs: gate at limit and limit + 1, gate at -limit and -limit - 1, and"
                " the same for up. A clamp is there if the two outputs differ by less than 1e-6.",
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="A paired test",
            text=(
                "One model solves 97 of 100 problems, another 91. Is that chance? Both were asked"
                " the same problems, so count those that only one of them solved. Write the exact"
                " sign test."
            ),
            solution=my_sign_test,
            cases=marks_cases,
            misconceptions=(
                with_ties,
                more_losses_only,
                exactly_as_many,
                wins_counted,
                order_ignored,
            ),
            hints=(
                "Count the lost and the won problems. Which numbers of losses would be at least as"
                " bad?",
                "With n coins there are 2**n equally likely results, and math.comb(n, k) of them"
                " have k heads.",
                "lost = solved by right only; n = lost + won; sum math.comb(n, k) for k from lost"
                " to n, and divide by 2**n.",
            ),
            minutes=10,
            difficulty=2,
        ),
    ),
)
