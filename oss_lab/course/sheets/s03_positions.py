"""Exercises of 03_positions: RMSNorm, the rotation, and YaRN."""

import math
from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_rms_norm(x, scale, eps):
    """Scale every vector to root mean square 1, then multiply by learned numbers.

    x: [... hidden]. scale: [hidden], the learned numbers.
    eps: a small number, added to the mean of the squares: a vector of zeros stays zero.
    Returns [... hidden].
    """
    mean = x.square().mean(dim=-1, keepdim=True)
    return x / (mean + eps).sqrt() * scale


def mean_subtracted(x, scale, eps):
    """You subtract the mean first: that is LayerNorm, not RMSNorm. nano still answers every product
    with it; only its logits change.
    """
    return my_rms_norm(x - x.mean(dim=-1, keepdim=True), scale, eps)


def scale_forgotten(x, scale, eps):
    """You do not multiply by `scale`. The norm has one learned number for each dimension."""
    return my_rms_norm(x, torch.ones_like(scale), eps)


def sum_of_squares(x, scale, eps):
    """You take the sum of the squares, not their mean. Then the length of a vector becomes 1; in
    RMSNorm its root mean square does, which is larger by the root of `hidden`.
    """
    return x / (x.square().sum(dim=-1, keepdim=True) + eps).sqrt() * scale


def root_forgotten(x, scale, eps):
    """You divide by the mean of the squares, not by its root. A vector twice as large must give the
    same result; yours is half as large.
    """
    return x / (x.square().mean(dim=-1, keepdim=True) + eps) * scale


def eps_outside(x, scale, eps):
    """You add `eps` after the root. It belongs inside, where it is added to the mean of the
    squares. The difference shows only in tiny vectors, and nano's are not tiny.
    """
    return x / (x.square().mean(dim=-1, keepdim=True).sqrt() + eps) * scale


def one_norm_for_all(x, scale, eps):
    """You take the mean over all tokens. Each token is normalized by itself: the mean is over the
    last axis only, and `keepdim=True` keeps it in place for the division.
    """
    return x / (x.square().mean() + eps).sqrt() * scale


def norm_cases() -> Iterator[tuple]:
    """Ordinary vectors, tiny ones and zeros, as one sequence and as a batch."""
    draw = torch.Generator().manual_seed(3)
    scale = torch.rand(6, generator=draw) + 0.5
    for size in (1.0, 20.0, 1e-3):
        yield size * (torch.randn(3, 6, generator=draw) + 0.5), scale.clone(), 1e-5
    yield torch.cat((torch.zeros(1, 6), torch.ones(1, 6))), scale.clone(), 1e-5
    yield torch.randn(2, 3, 6, generator=draw), -scale, 0.1


def my_rotate(x, cos, sin):
    """Rotate every pair of numbers: i and i + head_dim / 2 of each head.

    x: [batch head seq head_dim], a first half a and a second half b.
    cos: [rows 1 seq head_dim], the cosines twice: (cos, cos).
    sin: [rows 1 seq head_dim], the sines twice, with the signs of the rotation: (-sin, sin).
    Returns (a cos - b sin, b cos + a sin), [batch head seq head_dim].
    """
    a, b = x.chunk(2, dim=-1)
    swapped = torch.cat((b, a), dim=-1)
    return x * cos + swapped * sin


def neighbors_paired(x, cos, sin):
    """You pair neighbors: 0 with 1, 2 with 3. In gpt-oss number i is paired with i + head_dim / 2.
    With the wrong pairs nano answers no product and no sum right.
    """
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + swapped * sin


def sign_applied_twice(x, cos, sin):
    """You subtract in the first half, but the first half of `sin` is negative already. The signs of
    the rotation are in `sin`, so both halves add.
    """
    a, b = x.chunk(2, dim=-1)
    first, second = sin.chunk(2, dim=-1)
    return x * cos + torch.cat((-b * first, a * second), dim=-1)


def turned_backward(x, cos, sin):
    """You rotate in the other direction. nano's weights were trained with one direction, and with
    the other one it answers nothing right.
    """
    return my_rotate(x, cos, -sin)


def halves_not_swapped(x, cos, sin):
    """You multiply each half by its own sine. A rotation mixes: a gets a part of b, and b gets a
    part of a.
    """
    return x * cos + x * sin


def rotation_cases() -> Iterator[tuple]:
    """Two sequences with the same angles, a later position, and two with other angles."""
    draw = torch.Generator().manual_seed(4)
    for start, length in ((0, 5), (217, 1)):
        angles = torch.arange(start, start + length)[:, None] * torch.tensor([1.0, 0.3, 0.01])
        cos, sin = angles.cos()[None, None], angles.sin()[None, None]
        x = torch.randn(2, 4, length, 6, generator=draw)
        yield x, torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
    angles = torch.tensor([[0.5, 1.5], [7.0, 8.0]])[:, None, :, None] / torch.arange(1, 5)
    cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((-angles, angles), -1).sin()
    yield torch.randn(2, 4, 2, 8, generator=draw), cos, sin


def my_yarn_concentration(factor):
    """The number that multiplies cos and sin, and so the rotated queries and keys.

    factor: by how much YaRN stretches the context. Returns 0.1 ln(factor) + 1, or 1 if the factor
    is 1 or less.
    """
    return 0.1 * math.log(max(factor, 1.0)) + 1.0


def concentration_forgotten(factor):
    """You return 1 for every factor. Without the concentration all products of queries and keys are
    too small, and nano answers few questions.
    """
    return 1.0


def squared(factor):
    """You return the square, by which the products grow. Queries and keys both have the factor, so
    each of them needs its root.
    """
    return my_yarn_concentration(factor) ** 2


def other_logarithm(factor):
    """Your logarithm has the base 10. `math.log` is the natural one, ln."""
    return 0.1 * math.log10(max(factor, 1.0)) + 1.0


def one_forgotten(factor):
    """You do not add 1. A factor of 1 changes nothing, so its concentration is 1, not 0."""
    return my_yarn_concentration(factor) - 1.0


def smaller_than_one(factor):
    """A factor below 1 makes your concentration smaller than 1. Without a stretch it is 1."""
    return 0.1 * math.log(factor) + 1.0


def factor_cases() -> Iterator[tuple]:
    """The factor of all gpt-oss models, others, and no stretch."""
    for factor in (32.0, 4.5, 1.0, 0.5):
        yield (factor,)


def my_yarn_frequencies(head_dim, theta, factor, low, high):
    """Radians per position of each pair, stretched by YaRN.

    RoPE's frequency of pair i is theta ** (-i / half), where half = head_dim / 2.
    Up to pair `low` it is kept. From pair `high` on it is divided by `factor`. In between, the
    share of the divided one grows linearly from 0 to 1. A factor of 1 is plain RoPE.
    Returns float32 [half].
    """
    half = head_dim // 2
    pair = torch.arange(half, dtype=torch.float32)
    plain = theta ** (-pair / half)
    slowed = ((pair - low) / (high - low)).clamp(0, 1)
    return plain * (1 - slowed) + plain / factor * slowed


def plain_frequencies(head_dim, theta, factor, low, high):
    """You return plain RoPE: nothing is slowed down. nano was trained with the slowed frequencies,
    and without them it answers nothing right.
    """
    return my_yarn_frequencies(head_dim, theta, 1.0, low, high)


def all_interpolated(head_dim, theta, factor, low, high):
    """You divide all frequencies by the factor. The fast pairs, up to `low`, keep theirs: they
    measure short distances, which do not change in a longer text.
    """
    return my_yarn_frequencies(head_dim, theta, 1.0, low, high) / factor


def ramp_reversed(head_dim, theta, factor, low, high):
    """Your ramp runs the wrong way: you slow the fast pairs and keep the slow ones."""
    plain = my_yarn_frequencies(head_dim, theta, 1.0, low, high)
    blended = my_yarn_frequencies(head_dim, theta, factor, low, high)
    return plain + plain / factor - blended


def ramp_without_ends(head_dim, theta, factor, low, high):
    """Your ramp does not end at 0 and 1. Below `low` the share is 0, and above `high` it is 1."""
    pair = torch.arange(head_dim // 2, dtype=torch.float32)
    plain = theta ** (-pair / (head_dim // 2))
    slowed = (pair - low) / (high - low)
    return plain * (1 - slowed) + plain / factor * slowed


def whole_limits(head_dim, theta, factor, low, high):
    """You round `low` and `high` to whole pairs. gpt-oss uses the fractions. With rounded limits
    nano answers products as before, and fails at many sums of five terms.
    """
    return my_yarn_frequencies(head_dim, theta, factor, math.floor(low), math.ceil(high))


def exponent_too_small(head_dim, theta, factor, low, high):
    """Your exponent is half as large as it should be. Divide the number of the pair by the number
    of pairs, head_dim / 2, not by head_dim.
    """
    return my_yarn_frequencies(head_dim, theta**0.5, factor, low, high)


def frequency_cases() -> Iterator[tuple]:
    """nano, the published models, plain RoPE, and another base."""
    yield 16, 150_000.0, 32.0, 0.1621457, 2.4884570
    yield 64, 150_000.0, 32.0, 8.0928, 17.3980
    yield 64, 150_000.0, 1.0, 8.0928, 17.3980
    yield 16, 100.0, 4.0, 1.5, 5.25


SHEET = Sheet(
    lesson="03_positions",
    title="Exercises: positions",
    text="Read [03_positions](../03_positions.ipynb) first.",
    exercises=(
        Exercise(
            title="RMSNorm",
            text=(
                "Bring every token's vector to root mean square 1, then multiply by the learned"
                " numbers. This runs before attention, before the experts and before the logits."
            ),
            solution=my_rms_norm,
            cases=norm_cases,
            misconceptions=(
                mean_subtracted,
                scale_forgotten,
                sum_of_squares,
                root_forgotten,
                eps_outside,
                one_norm_for_all,
            ),
            hints=(
                "Square, take the mean, take the root: the name of the norm read backward.",
                "The mean of the squares of [... hidden] is [... 1] with `keepdim=True`, so it can"
                " divide x.",
                "mean of squares over the last axis, + eps, square root, x divided by it, * scale.",
            ),
            minutes=6,
            difficulty=1,
            part="rms_norm",
        ),
        Exercise(
            title="The rotation",
            text=(
                "Rotate the pairs of a head. The cosines and sines come as in the model: twice side"
                " by side, and the sines with their signs."
            ),
            solution=my_rotate,
            cases=rotation_cases,
            misconceptions=(
                neighbors_paired,
                sign_applied_twice,
                turned_backward,
                halves_not_swapped,
            ),
            hints=(
                "What must x be multiplied by in the first half, and what is added to it there?",
                "`x.chunk(2, dim=-1)` gives the halves a and b; (b, a) side by side has x's shape.",
                "x * cos + (b, a) * sin: the minus of the first half is in `sin`.",
            ),
            minutes=8,
            difficulty=2,
            part="rotate",
        ),
        Exercise(
            title="The frequencies of YaRN",
            text=(
                "Compute RoPE's frequencies, and slow down the slow ones. The limits of the ramp"
                " are given."
            ),
            solution=my_yarn_frequencies,
            cases=frequency_cases,
            misconceptions=(
                plain_frequencies,
                all_interpolated,
                ramp_reversed,
                ramp_without_ends,
                whole_limits,
                exponent_too_small,
            ),
            hints=(
                "Compute the plain and the divided frequency of every pair, and a share between 0"
                " and 1 that mixes them.",
                "The pairs are `torch.arange(half)`, [half]; so are the frequencies and the share.",
                "share = (pair - low) / (high - low), limited to 0 ... 1; result = plain *"
                " (1 - share) + plain / factor * share.",
            ),
            minutes=10,
            difficulty=2,
            part="yarn_frequencies",
        ),
        Exercise(
            title="The concentration of YaRN",
            text="Compute the number that multiplies the rotated queries and keys.",
            solution=my_yarn_concentration,
            cases=factor_cases,
            misconceptions=(
                concentration_forgotten,
                squared,
                other_logarithm,
                one_forgotten,
                smaller_than_one,
            ),
            hints=(
                "It is 1 without a stretch, and grows slowly with the factor.",
                "A number comes in, and a number goes out: no tensors.",
                "0.1 * the natural logarithm of the factor + 1; use 1 for a factor below 1.",
            ),
            minutes=3,
            difficulty=1,
            part="yarn_concentration",
        ),
    ),
)
