"""Exercises of 10_inside: direct parts, an effect through a hook, and a patch between two runs."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from oss_lab.course.exercise import Exercise, Sheet


def my_direct_parts(parts, scale, eps, rows, token, against):
    """What each part adds to the logit of `token` minus that of `against`.

    parts: [part hidden]; their sum is the last residual stream. scale: [hidden] and eps, of the
    final norm. rows: [vocab hidden], the unembedding. Returns [part].
    """
    size = (parts.sum(0).square().mean() + eps).sqrt()
    direction = scale * (rows[token] - rows[against])
    return parts @ direction / size


def each_with_its_size(parts, scale, eps, rows, token, against):
    """You normalize every part on its own. The final norm divides the whole stream by one number,
    and so all parts by the same one; otherwise they do not add up to the logit.
    """
    sizes = (parts.square().mean(-1) + eps).sqrt()
    return parts @ (scale * (rows[token] - rows[against])) / sizes


def without_the_norm(parts, scale, eps, rows, token, against):
    """You left out the division by the stream's size. The unembedding reads the stream after the
    final norm, so your parts are too large or too small by one factor.
    """
    return parts @ (scale * (rows[token] - rows[against]))


def without_the_scale(parts, scale, eps, rows, token, against):
    """You left out `scale`, which the final norm multiplies each of the hidden numbers by."""
    return my_direct_parts(parts, torch.ones_like(scale), eps, rows, token, against)


def only_the_token(parts, scale, eps, rows, token, against):
    """You compute the parts of one logit. The question is about a difference: what raises both
    tokens alike decides nothing.
    """
    size = (parts.sum(0).square().mean() + eps).sqrt()
    return parts @ (scale * rows[token]) / size


def the_other_way(parts, scale, eps, rows, token, against):
    """You subtract the logit of `token` from that of `against`, so all your signs are wrong."""
    return my_direct_parts(parts, scale, eps, rows, against, token)


def parts_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(0)
    for count, hidden, eps in ((3, 4, 1e-5), (7, 6, 1e-5), (2, 5, 0.5)):
        parts = 3 * torch.randn(count, hidden, generator=draw)
        scale = 1 + torch.rand(hidden, generator=draw)
        yield parts, scale, eps, torch.randn(9, hidden, generator=draw), 2, 7
    yield parts.clone(), -scale, eps, torch.randn(9, hidden, generator=draw), 8, 0


def run_toy(tokens: list[int], change: Callable[[int, Tensor], Tensor | None]) -> Tensor:
    """A model of three layers with four heads, small enough for an exercise.

    Each layer mixes the tokens read so far. `change(layer, z)` gets what its heads found,
    z [seq head head_dim], may edit it or return another tensor, and the model continues with that.
    Returns the logits [vocab] after the last token.
    """
    draw = torch.Generator().manual_seed(3)
    embedding, *mixers = (torch.randn(11, 8, generator=draw) for _ in range(4))
    x = embedding[list(tokens)]
    order = torch.ones(len(tokens), len(tokens)).tril()
    for layer, mixer in enumerate(mixers):
        read = torch.tanh(x @ mixer[:8] + (order @ x) / order.sum(-1, keepdim=True))
        z = read.view(len(tokens), 4, 2).clone()
        changed = change(layer, z)
        x = x + (z if changed is None else changed).reshape(len(tokens), 8)
    return x[-1] @ embedding.T


def my_effect(run, tokens, layer, head, position, token, against):
    """How much the logit of `token` minus that of `against` falls without one head of one token.

    run(tokens, change): runs a model and returns the logits [vocab] after the last token. It calls
    change(n, z) in each layer n, where z is what the heads found, [seq head head_dim]. `change` may
    edit z, or return another tensor; if it does nothing, nothing changes. Returns a float.
    """

    def change(n, z):
        if n == layer:
            z[position, head] = 0

    def difference(logits):
        return float(logits[token] - logits[against])

    return difference(run(tokens, lambda n, z: None)) - difference(run(tokens, change))


def measure_fall(run: Any, tokens: Any, change: Any, token: int, against: int) -> float:
    plain, changed = run(tokens, lambda n, z: None), run(tokens, change)
    return float(plain[token] - plain[against] - changed[token] + changed[against])


def direct_part_as_effect(run, tokens, layer, head, position, token, against):
    """You keep the later layers as they were, so you measure the direct part only. An effect
    includes what the later layers do with the change: let them compute again.
    """
    kept = {}

    def record(n, z):
        kept[n] = z.clone()

    def change(n, z):
        if n == layer:
            z[position, head] = 0
            return z
        return kept[n]

    run(tokens, record)
    return measure_fall(run, tokens, change, token, against)


def at_every_token(run, tokens, layer, head, position, token, against):
    """You ablate the head at every token. The question is about one position."""

    def change(n, z):
        if n == layer:
            z[:, head] = 0

    return measure_fall(run, tokens, change, token, against)


def in_every_layer(run, tokens, layer, head, position, token, against):
    """You ablate the head in every layer. Heads with the same number have nothing in common:
    compare `n` with `layer`.
    """

    def change(n, z):
        z[position, head] = 0

    return measure_fall(run, tokens, change, token, against)


def at_the_last_token(run, tokens, layer, head, position, token, against):
    """You ablate the head at the last token, where the logits are read. Use `position`."""
    return my_effect(run, tokens, layer, head, -1, token, against)


def whole_token(run, tokens, layer, head, position, token, against):
    """You ablate all heads of the token. z[position] has one row per head: index it, too."""

    def change(n, z):
        if n == layer:
            z[position] = 0

    return measure_fall(run, tokens, change, token, against)


def a_rise(run, tokens, layer, head, position, token, against):
    """Your sign is wrong. Return how much the difference *falls*: the unchanged run minus the
    changed one. Then a head that helps has a positive effect.
    """
    return -my_effect(run, tokens, layer, head, position, token, against)


def one_logit(run, tokens, layer, head, position, token, against):
    """You compare one logit. A change that lowers all logits alike changes no probability: compare
    the difference of the two logits.
    """

    def change(n, z):
        if n == layer:
            z[position, head] = 0

    plain, changed = run(tokens, lambda n, z: None), run(tokens, change)
    return float(plain[token] - changed[token])


def effect_cases() -> Iterator[tuple]:
    """Two sequences; in each, heads of an early and of a middle layer before the last token."""
    for tokens in ([1, 4, 2, 8], [3, 3, 9, 0, 5]):
        for layer, head, position in ((0, 1, 1), (1, 3, 2)):
            yield run_toy, list(tokens), layer, head, position, 4 + layer, 6 + layer


def my_patch(run, clean, corrupted, layer, position):
    """The logits of the corrupted run with one value of the clean run patched in.

    run(tokens, change): as in the last exercise. clean, corrupted: two lists of tokens of the same
    length. The patched value is z[position] of `layer`. Returns the logits [vocab].
    """
    kept = {}

    def record(n, z):
        kept[n] = z.clone()

    def change(n, z):
        if n == layer:
            z[position] = kept[n][position]

    run(clean, record)
    return run(corrupted, change)


def patch_with(run: Any, source: Any, into: Any, where: Callable[[int], Any]) -> Tensor:
    """Run `into` with values of `source` at where(layer), which is None or positions."""
    kept: dict[int, Tensor] = {}

    def record(n, z):
        kept[n] = z.clone()

    def change(n, z):
        if (places := where(n)) is not None:
            z[places] = kept[n][places]

    run(source, record)
    return run(into, change)


def into_the_clean_run(run, clean, corrupted, layer, position):
    """You patch a corrupted value into the clean run. That asks what is *needed*; the question is
    what is enough to bring the clean answer back.
    """
    return patch_with(run, corrupted, clean, lambda n: position if n == layer else None)


def at_every_position(run, clean, corrupted, layer, position):
    """You patch all positions of the layer, so you cannot say which one carries the answer."""
    return patch_with(run, clean, corrupted, lambda n: slice(None) if n == layer else None)


def at_every_layer(run, clean, corrupted, layer, position):
    """You patch the position in all layers, so you cannot say where the answer leaves it."""
    return patch_with(run, clean, corrupted, lambda n: position)


def one_position_later(run, clean, corrupted, layer, position):
    """You patch the position after the one that differs, which holds only what it read there. The
    patch restores little, and looks as if the layer did not matter.
    """
    return patch_with(run, clean, corrupted, lambda n: position + 1 if n == layer else None)


def where_the_answer_is_read(run, clean, corrupted, layer, position):
    """You patch the last position, where the logits are read. Use `position`."""
    return patch_with(run, clean, corrupted, lambda n: -1 if n == layer else None)


def nothing_patched(run, clean, corrupted, layer, position):
    """Your result is that of the corrupted run, without a patch. Does `change` edit its z, or
    return the new one? And was the clean run recorded as a copy, before the corrupted one?
    """
    return run(corrupted, lambda n, z: None)


def patch_cases() -> Iterator[tuple]:
    """Pairs that differ at one position, which is patched in several layers."""
    for clean, corrupted in (([1, 4, 2, 8], [1, 7, 2, 8]), ([3, 6, 9, 0, 5], [3, 1, 9, 0, 5])):
        for layer in range(3):
            yield run_toy, list(clean), list(corrupted), layer, 1
    yield run_toy, [2, 5, 7, 1], [2, 5, 3, 1], 0, 2


SHEET = Sheet(
    lesson="10_inside",
    title="Exercises: inside",
    text=(
        "Read [10_inside](../10_inside.ipynb) first. The checkers of the second and third exercise"
        " run a tiny model with random weights: three layers of four heads."
    ),
    exercises=(
        Exercise(
            title="What is a logit made of?",
            text=(
                "The last residual stream is the sum of `parts`. Return what each part adds to the"
                " difference of two logits. Your numbers must add up to this difference."
            ),
            solution=my_direct_parts,
            cases=parts_cases,
            misconceptions=(
                each_with_its_size,
                without_the_norm,
                without_the_scale,
                only_the_token,
                the_other_way,
            ),
            hints=(
                "The final norm divides the stream by one number, its root mean square. Once you"
                " know this number, everything else is a sum of products.",
                "`parts.sum(0)` is the stream, [hidden]. `scale * (rows[token] - rows[against])` is"
                " [hidden], too.",
                "size = sqrt(mean of the squares of the stream + eps); the parts are parts @"
                " direction / size.",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="A hook, and its effect",
            text=(
                "Ablate one head at one token: what it found becomes zero. Return how much the"
                " difference of two logits falls. You need two runs and a function that changes z."
            ),
            solution=my_effect,
            cases=effect_cases,
            misconceptions=(
                direct_part_as_effect,
                at_every_token,
                in_every_layer,
                at_the_last_token,
                whole_token,
                a_rise,
                one_logit,
            ),
            hints=(
                "Run once without a change and once with it. The function that you pass is called"
                " in every layer, and must do nothing in the others.",
                "z is [seq head head_dim], so one head of one token is z[position, head],"
                " [head_dim].",
                "def change(n, z): if n == layer: z[position, head] = 0. Then the difference of the"
                " plain run minus that of the changed run, as a float.",
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="A patch between two look-ups",
            text=(
                "Two runs differ in one token. Take one value of the clean run, put it into the"
                " corrupted run at the same place, and return the logits."
            ),
            solution=my_patch,
            cases=patch_cases,
            misconceptions=(
                into_the_clean_run,
                at_every_position,
                at_every_layer,
                one_position_later,
                where_the_answer_is_read,
                nothing_patched,
            ),
            hints=(
                "First run the clean tokens with a function that only keeps what it sees. Then run"
                " the corrupted tokens with a function that writes one kept value.",
                "z is [seq head head_dim]; what you write is z[position], [head head_dim]. Keep"
                " copies, by layer.",
                "kept[n] = z.clone() in the first run; in the second, if n == layer: z[position] ="
                " kept[n][position].",
            ),
            minutes=10,
            difficulty=2,
        ),
    ),
)
