"""Exercises of 08_transformer: the last part, a whole model, and how to compare two models."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from oss_lab.course.exercise import Exercise, Sheet


def my_split_gate_up(gate_up):
    """Gate and up of an expert, from the output of its first matrix.

    gate_up: [*rows 2*width]. Its numbers alternate along the last axis: gate, up, gate, up, ...
    Returns (gate, up), each [*rows width].
    """
    return gate_up[..., 0::2], gate_up[..., 1::2]


def split_into_halves(gate_up):
    """You split into halves. Many models store gate and up that way; in gpt-oss they alternate.
    nano then gives no right answer.
    """
    return gate_up.chunk(2, dim=-1)


def up_first(gate_up):
    """Your gate and up are swapped. The first number of each pair is the gate."""
    return gate_up[..., 1::2], gate_up[..., 0::2]


def rows_split(gate_up):
    """You split the rows, which are tokens. Split the last axis, at any number of axes."""
    return gate_up[0::2], gate_up[1::2]


def split_cases() -> Iterator[tuple[Tensor]]:
    """One, four and two times three rows."""
    yield (make_matrix(1, 1, 6)[0],)
    yield (make_matrix(2, 4, 8),)
    yield (make_matrix(3, 6, 10).view(2, 3, 10),)


def my_model(ids, embedding, layers, final_norm, unembedding):
    """The logits of a whole model.

    ids: a list of token ids. embedding and unembedding: [vocab hidden]. final_norm: a function.
    layers: for each layer four functions (norm, attention, second_norm, experts), each from
    [seq hidden] to [seq hidden].
    Returns [seq vocab].
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = x + attention(norm(x))
        x = x + experts(second_norm(x))
    return final_norm(x) @ unembedding.T


def stream_replaced(ids, embedding, layers, final_norm, unembedding):
    """Your layers replace the stream. What attention or the experts return is added to it: x = x +
    ..., or every layer forgets what the layers before it found.
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = experts(second_norm(attention(norm(x))))
    return final_norm(x) @ unembedding.T


def norm_in_the_stream(ids, embedding, layers, final_norm, unembedding):
    """You add to the normed stream. Only a copy is normed, for attention or the experts to read;
    the stream itself keeps its size.
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = norm(x)
        x = x + attention(x)
        x = second_norm(x)
        x = x + experts(x)
    return final_norm(x) @ unembedding.T


def norm_after(ids, embedding, layers, final_norm, unembedding):
    """You norm the stream after each sum. In gpt-oss the norm comes before attention and experts:
    they read a normed copy of the stream. Older transformers normed afterward.
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = norm(x + attention(x))
        x = second_norm(x + experts(x))
    return final_norm(x) @ unembedding.T


def results_normed(ids, embedding, layers, final_norm, unembedding):
    """You norm what attention and the experts return. In gpt-oss they read a normed copy of the
    stream, and what they return is added unchanged.
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = x + norm(attention(x))
        x = x + second_norm(experts(x))
    return final_norm(x) @ unembedding.T


def side_by_side(ids, embedding, layers, final_norm, unembedding):
    """Your experts read the stream from before attention. They come after it, so they must see what
    attention has added. Some other models compute both side by side.
    """
    x = embedding[ids]
    for norm, attention, second_norm, experts in layers:
        x = x + attention(norm(x)) + experts(second_norm(x))
    return final_norm(x) @ unembedding.T


def final_norm_forgotten(ids, embedding, layers, final_norm, unembedding):
    """You forgot the final norm. The stream has grown with every layer, and the unembedding expects
    a normed copy of it.
    """
    return my_model(ids, embedding, layers, lambda x: x, unembedding)


def embedding_used_twice(ids, embedding, layers, final_norm, unembedding):
    """You compute the logits with the embedding. Some models use one matrix for both ends; gpt-oss
    has another one for the logits, `unembedding`.
    """
    return my_model(ids, embedding, layers, final_norm, embedding)


def last_layer_only(ids, embedding, layers, final_norm, unembedding):
    """Each of your layers starts from the embedding, so only the last one counts. A layer continues
    with the stream that the layer before it left.
    """
    return my_model(ids, embedding, layers[-1:], final_norm, unembedding)


def make_matrix(seed: int, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def make_layer(seed: int, hidden: int) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Toy functions that differ from layer to layer; this attention mixes earlier tokens in."""
    first, second = (make_matrix(seed + n, hidden, hidden) / 2 for n in (1, 2))

    def norm(x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * (1 + seed / 10)

    def attention(x: Tensor) -> Tensor:
        count = torch.arange(1, len(x) + 1)[:, None]
        return x.cumsum(0) / count @ first

    def experts(x: Tensor) -> Tensor:
        return (x @ second).tanh() * 2

    return norm, attention, lambda x: 2 * norm(x), experts


def model_cases() -> Iterator[tuple]:
    """Models of one to four layers, with other texts."""
    for count in (1, 2, 4):
        embedding, unembedding = make_matrix(count, 10, 6), make_matrix(90 + count, 10, 6)
        layers = [make_layer(10 * n + count, 6) for n in range(count)]
        final_norm = make_layer(70 + count, 6)[0]
        yield [3, 1, 4, 1, 5, 9, 2][: 3 + count], embedding, layers, final_norm, unembedding


def my_logit_change(ours, theirs):
    """How far two models are apart: (largest change of a logit, mean KL divergence in nats).

    ours and theirs: the logits of two models for the same tokens, [seq vocab].
    The KL divergence of one token is sum(p * (log p - log q)) over the vocabulary, with p from the
    softmax of `ours` and q from that of `theirs`.
    Returns two Python floats.
    """
    log_p, log_q = ours.log_softmax(-1), theirs.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return float((ours - theirs).abs().max()), float(kl.mean())


def measure_change(ours, theirs, change, kl, over=torch.mean):
    """`my_logit_change` with another change, another KL per token, or another mean."""
    return float(change(ours, theirs)), float(over(kl(ours, theirs)))


def largest_change(ours, theirs):
    return (ours - theirs).abs().max()


def kl_per_token(ours, theirs):
    log_p, log_q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def sign_kept(ours, theirs):
    """You lose changes downward. Take the absolute value before the largest, or a logit that fell
    by 10 counts less than one that rose by 1.
    """
    return measure_change(ours, theirs, lambda a, b: (b - a).max(), kl_per_token)


def kl_reversed(ours, theirs):
    """Your KL divergence is the wrong way round. It weighs each token by the probability that the
    first model gives it, and it is not the same in both directions.
    """
    return measure_change(ours, theirs, largest_change, lambda a, b: kl_per_token(b, a))


def summed_over_tokens(ours, theirs):
    """You sum over the tokens of the text. Use the mean: then you can compare texts of different
    lengths.
    """
    return measure_change(ours, theirs, largest_change, kl_per_token, torch.sum)


def mean_over_vocabulary(ours, theirs):
    """You take the mean over the vocabulary, too. The sum over it is the divergence of one token;
    only the tokens of the text are averaged.
    """
    return measure_change(
        ours, theirs, largest_change, lambda a, b: kl_per_token(a, b) / a.shape[-1]
    )


def in_bits(ours, theirs):
    """Your KL divergence is in bits. Nats are what the natural logarithm gives."""
    return measure_change(
        ours, theirs, largest_change, lambda a, b: kl_per_token(a, b) / math.log(2)
    )


def change_of_log_probabilities(ours, theirs):
    """You compare log-probabilities where the logits are wanted. A softmax hides a change that all
    logits share; the first number compares the logits themselves.
    """
    return measure_change(
        ours,
        theirs,
        lambda a, b: largest_change(a.log_softmax(-1), b.log_softmax(-1)),
        kl_per_token,
    )


def last_token_only(ours, theirs):
    """You compare the last token only. A mistake may show at any token of the text."""
    return my_logit_change(ours[-1:], theirs[-1:])


def change_cases() -> Iterator[tuple[Tensor, Tensor]]:
    """Changes from small to huge; one lowers a logit, one shifts all logits of a token."""
    for seed, size in enumerate((0.01, 1.0, 4.0)):
        ours = 3 * make_matrix(seed, 6, 9)
        theirs = ours + size * make_matrix(50 + seed, 6, 9)
        theirs[seed, 2 + seed] -= 7
        theirs[seed + 1] -= 11
        yield ours, theirs
    yield 100 * make_matrix(7, 6, 9), 100 * make_matrix(8, 6, 9)


def my_first_difference(points, ours, theirs, tolerance):
    """Where two models part: the first point, and the first token there, that differs.

    points: names in the order of the computation. ours and theirs: the values of each point, by its
    name, [seq width]. A value differs if it is not within `tolerance` times the root mean square of
    `ours[point]`; NaN differs from any number.
    Returns (point, token), the token as an int, or None if nothing differs.
    """
    for point in points:
        size = ours[point].square().mean().sqrt()
        same = ((ours[point] - theirs[point]).abs() <= tolerance * size).all(-1)
        if not same.all():
            return point, int((~same).nonzero()[0])
    return None


def find_point(points, ours, theirs, tolerance, differs, size=None):
    """The first point at which `differs`, compared with `size`, has a token; and that token."""
    size = size or (lambda x: x.square().mean().sqrt())
    for point in points:
        found = differs(ours[point], theirs[point], tolerance * size(ours[point])).any(-1)
        if found.any():
            return point, int(found.nonzero()[0])
    return None


def beyond(ours, theirs, limit):
    return ~((ours - theirs).abs() <= limit)


def largest_instead_of_first(points, ours, theirs, tolerance):
    """You return the largest difference. Differences grow from layer to layer; the cause is where
    they begin.
    """
    if my_first_difference(points, ours, theirs, tolerance) is None:
        return None
    sizes = {
        point: (ours[point] - theirs[point]).abs().nan_to_num(1e9).amax(-1)
        / ours[point].square().mean().sqrt()
        for point in points
    }
    point = max(points, key=lambda each: float(sizes[each].max()))
    return point, int(sizes[point].argmax())


def absolute_tolerance(points, ours, theirs, tolerance):
    """Your tolerance does not depend on the size of the values. Rounding grows with them, so
    compare with `tolerance` times their root mean square.
    """
    return find_point(points, ours, theirs, tolerance, beyond, lambda x: 1.0)


def nan_missed(points, ours, theirs, tolerance):
    """You miss NaN. Every comparison with NaN is false, so ask whether the difference is within the
    tolerance, and negate that.
    """
    return find_point(points, ours, theirs, tolerance, lambda a, b, limit: (a - b).abs() > limit)


def one_direction(points, ours, theirs, tolerance):
    """You miss values that became smaller. Take the absolute value of the difference."""
    return find_point(points, ours, theirs, tolerance, lambda a, b, limit: ~(b - a <= limit))


def first_token_first(points, ours, theirs, tolerance):
    """You return the earliest token. The order of the computation comes first: at the first point
    that differs, the earliest token may be later than at a point after it.
    """
    found = [my_first_difference([each], ours, theirs, tolerance) for each in points]
    return min((each for each in found if each), key=lambda each: each[1], default=None)


def points_sorted(points, ours, theirs, tolerance):
    """You sort the points by name. They are in the order of the computation already, and that order
    is what shows the cause.
    """
    return my_first_difference(sorted(points), ours, theirs, tolerance)


def difference_cases() -> Iterator[tuple]:
    """Equal values, rounding, NaN, one smaller value, and differences that grow."""
    points, sizes = ("norm", "attention", "experts", "end"), (1.0, 50.0, 0.01, 400.0)
    changes = (
        {},
        {"attention": (4, -1.0), "end": (1, 90.0)},
        {"experts": (2, 0.5), "end": (0, math.nan)},
        {"norm": (3, math.nan), "attention": (0, 3.0)},
        {"experts": (5, -0.2), "end": (3, -0.1)},
        {"end": (1, 2.0)},
    )
    for seed, changed in enumerate(changes):
        ours = {
            point: size * make_matrix(seed + 10 * n, 7, 4)
            for n, (point, size) in enumerate(zip(points, sizes, strict=True))
        }
        theirs = {point: x * (1 + 1e-6) for point, x in ours.items()}
        for point, (token, change) in changed.items():
            theirs[point][token, 1] += change * sizes[points.index(point)]
        yield points, ours, theirs, 1e-4
    x = make_matrix(99, 3, 4)
    yield ("one",), {"one": x}, {"one": x + torch.tensor([[0.05], [0.2], [0.2]])}, 0.1


SHEET = Sheet(
    lesson="08_transformer",
    title="Exercises: the whole model",
    text=(
        "Read [08_transformer](../08_transformer.ipynb) first. The last two exercises are the"
        " instruments of the lesson."
    ),
    exercises=(
        Exercise(
            title="The last part",
            text="Separate gate and up: one line, the last part without an exercise so far.",
            solution=my_split_gate_up,
            cases=split_cases,
            misconceptions=(split_into_halves, up_first, rows_split),
            hints=(
                "Every second number is a gate. Slices have a step.",
                "`gate_up[..., a::b]` takes every b-th number of the last axis, from number a on;"
                " each result is [*rows width].",
                "Gate begins at 0 and up at 1, both with step 2.",
            ),
            minutes=2,
            difficulty=1,
            part="split_gate_up",
        ),
        Exercise(
            title="Assemble a model",
            text=(
                "Write the way from token ids to logits. The steps inside are given as functions,"
                " so only their order is left, and what is added where."
            ),
            solution=my_model,
            cases=model_cases,
            misconceptions=(
                stream_replaced,
                norm_in_the_stream,
                norm_after,
                results_normed,
                side_by_side,
                final_norm_forgotten,
                embedding_used_twice,
                last_layer_only,
            ),
            hints=(
                "One variable is the stream. Which steps change it, and which ones only read it?",
                "The stream is [seq hidden] from the embedding to the final norm.",
                "x = the rows of the embedding; in every layer add attention(norm(x)) to x, then"
                " add experts(second_norm(x)) to the new x; at the end, final_norm(x) times the"
                " unembedding, transposed.",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="How far apart are two models?",
            text=(
                "Write the instrument that sees most mistakes: the largest change of a logit, and"
                " the mean KL divergence of the predictions. That is 0 if both models predict"
                " alike, and grows with the distance of their probabilities. **Nats** are its unit"
                " if the logarithm is the natural one."
            ),
            solution=my_logit_change,
            cases=change_cases,
            misconceptions=(
                sign_kept,
                kl_reversed,
                summed_over_tokens,
                mean_over_vocabulary,
                in_bits,
                change_of_log_probabilities,
                last_token_only,
            ),
            hints=(
                "The first number compares logits, the second probabilities. Both look at all"
                " tokens of the text.",
                "`log_softmax(-1)` gives log p, [seq vocab]; the KL of each token is [seq].",
                "kl = (log_p.exp() * (log_p - log_q)).sum(-1); return the largest absolute"
                " difference of the logits, and kl.mean(), both as float(...).",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="The first difference",
            text=(
                "Write the instrument that finds the cause: the first point at which two models"
                " differ by more than rounding, and the first token there."
            ),
            solution=my_first_difference,
            cases=difference_cases,
            misconceptions=(
                largest_instead_of_first,
                absolute_tolerance,
                nan_missed,
                one_direction,
                first_token_first,
                points_sorted,
            ),
            hints=(
                "Go through the points in their order, and return as soon as one differs.",
                "`((a - b).abs() <= limit)` is [seq width]; `.all(-1)` is True for each token that"
                " is the same.",
                "limit = tolerance * ours[point].square().mean().sqrt(); same = ((a - b).abs() <="
                " limit).all(-1); if not all are the same, return the point and"
                " int((~same).nonzero()[0]); after the loop, return None.",
            ),
            minutes=10,
            difficulty=2,
        ),
    ),
)
