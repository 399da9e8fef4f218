"""Exercises of 12_real_20b: bytes of a checkpoint, what fits a machine, and unused experts."""

import math
from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_weight_bytes(tensors):
    """The bytes of a checkpoint's tensors, an int.

    tensors: pairs (dtype, shape). dtype is "mxfp4" or "bfloat16". shape is a tuple that counts
    weights; in an MXFP4 tensor, its last number is a multiple of 32.
    """
    total = 0
    for dtype, shape in tensors:
        weights = math.prod(shape)
        total += weights // 32 * 17 if dtype == "mxfp4" else weights * 2
    return total


def scales_forgotten(tensors):
    """You count half a byte per MXFP4 weight. That is the codes alone: every block of 32 weights
    also has a scale of one byte. In gpt-oss-20b you miss more than half a gigabyte.
    """
    sizes = ((dtype, math.prod(shape)) for dtype, shape in tensors)
    return sum(size // 2 if dtype == "mxfp4" else size * 2 for dtype, size in sizes)


def a_byte_for_a_code(tensors):
    """You count one byte per MXFP4 weight. Two codes of four bits share a byte."""
    sizes = ((dtype, math.prod(shape)) for dtype, shape in tensors)
    return sum(size + size // 32 if dtype == "mxfp4" else size * 2 for dtype, size in sizes)


def all_in_bfloat16(tensors):
    """You count two bytes for every weight. Only bfloat16 tensors have that size; the experts are
    packed, and this is why 20b fits into a laptop.
    """
    return sum(2 * math.prod(shape) for _, shape in tensors)


def all_in_mxfp4(tensors):
    """You count every tensor as MXFP4. Only the experts' matrices are packed; the attention, the
    embedding and the biases have two bytes per weight.
    """
    return sum(math.prod(shape) * 17 // 32 for _, shape in tensors)


def four_bytes_a_number(tensors):
    """You count four bytes for a bfloat16 weight. That is float32; bfloat16 has two bytes."""
    sizes = ((dtype, math.prod(shape)) for dtype, shape in tensors)
    return sum(size // 32 * 17 if dtype == "mxfp4" else size * 4 for dtype, size in sizes)


def weight_cases() -> Iterator[tuple]:
    """One tensor of each kind, a layer of 20b, and a few small ones."""
    yield ([("mxfp4", (32, 5760, 2880))],)
    yield ([("bfloat16", (201_088, 2880))],)
    yield ([("bfloat16", (5120, 2880)), ("mxfp4", (32, 2880, 2880)), ("bfloat16", (32, 2880))],)
    yield ([("bfloat16", (7,)), ("mxfp4", (3, 64)), ("mxfp4", (1, 32))],)


def my_longest_context(gigabytes, weights, layers, kv_heads, head_dim, most):
    """How many tokens fit into a memory together with the weights, an int.

    gigabytes: the memory; 1 GB is 10**9 bytes. weights: their bytes. Every layer stores, for each
    token and kv head, a key and a value of `head_dim` numbers of 2 bytes. Never more than `most`
    tokens; 0 if not even the weights fit.
    """
    per_token = 2 * layers * kv_heads * head_dim * 2
    free = gigabytes * 10**9 - weights
    return max(0, min(most, free // per_token))


def gibibytes(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You take 1 GB as 2**30 bytes. That is 1 GiB, which is 7% more, so your text does not fit."""
    more = gigabytes * (2**30 - 10**9)
    return my_longest_context(gigabytes, weights - more, layers, kv_heads, head_dim, most)


def weights_forgotten(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You give the whole memory to the KV cache. The weights take their bytes first."""
    return my_longest_context(gigabytes, 0, layers, kv_heads, head_dim, most)


def keys_only(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You count half of the cache, so your text is twice too long. A layer stores a key *and* a
    value for every token, and each of their numbers has two bytes.
    """
    return my_longest_context(gigabytes, weights, layers / 2, kv_heads, head_dim, most) // 1


def without_a_limit(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You forgot `most`. A model reads no longer text, however large your memory is."""
    return my_longest_context(gigabytes, weights, layers, kv_heads, head_dim, 10**12)


def below_zero(gigabytes, weights, layers, kv_heads, head_dim, most):
    """Your result is negative if the weights do not fit. Then no token fits: return 0."""
    per_token = 4 * layers * kv_heads * head_dim
    return min(most, (gigabytes * 10**9 - weights) // per_token)


def rounded_up(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You round up. The last token then does not fit completely; round down with `//`."""
    per_token = 4 * layers * kv_heads * head_dim
    tokens = math.ceil((gigabytes * 10**9 - weights) / per_token)
    return max(0, min(most, tokens))


def rounded_to_the_nearest(gigabytes, weights, layers, kv_heads, head_dim, most):
    """You round to the nearest number. Half a token more does not fit: round down with `//`."""
    per_token = 4 * layers * kv_heads * head_dim
    tokens = round((gigabytes * 10**9 - weights) / per_token)
    return max(0, min(most, tokens))


def context_cases() -> Iterator[tuple]:
    """20b in 16, 24 and 12 GB, 120b in 70 GB, and 20b without a byte to spare."""
    yield 16, 13_761_264_768, 24, 8, 64, 131_072
    yield 24, 13_761_264_768, 24, 8, 64, 131_072
    yield 12, 13_761_264_768, 24, 8, 64, 131_072
    yield 70, 65_248_815_744, 36, 8, 64, 131_072
    yield 14, 14 * 10**9 - 5 * 49_152, 24, 8, 64, 131_072
    yield 1, 2_474_240, 4, 2, 16, 8192
    yield 1, 10**9 - 1_000_000, 4, 2, 16, 8192
    yield 16, 13_761_264_768 - 20_000, 24, 8, 64, 131_072


def my_choice(models, gigabytes, tokens):
    """The name of the model with most bytes of weights that fits, or None if none does.

    models: by name, (bytes of the weights, bytes of the KV cache per token, most tokens).
    A model fits if it can read `tokens` tokens and its weights and cache are at most `gigabytes`,
    of 10**9 bytes each.
    """
    fitting = {}
    for name, (weights, per_token, most) in models.items():
        if tokens <= most and weights + tokens * per_token <= gigabytes * 10**9:
            fitting[name] = weights
    return max(fitting, key=lambda name: fitting[name]) if fitting else None


def cache_ignored(models, gigabytes, tokens):
    """You compare the weights alone with the memory. A long text can need gigabytes of cache."""
    free = {name: (weights, 0, most) for name, (weights, _, most) in models.items()}
    return my_choice(free, gigabytes, tokens)


def length_ignored(models, gigabytes, tokens):
    """You ignore the most tokens that a model reads. Memory alone does not make a text fit."""
    endless = {name: (weights, each, tokens) for name, (weights, each, _) in models.items()}
    return my_choice(endless, gigabytes, tokens)


def first_that_fits(models, gigabytes, tokens):
    """You return the first model that fits. The order of `models` says nothing: find the largest
    of those that fit.
    """
    return next((n for n in models if my_choice({n: models[n]}, gigabytes, tokens)), None)


def smallest_that_fits(models, gigabytes, tokens):
    """You return the smallest model that fits. The task is to find the one with most weights."""
    fitting = [n for n in models if my_choice({n: models[n]}, gigabytes, tokens)]
    return min(fitting, key=lambda name: models[name][0]) if fitting else None


def almost_full(models, gigabytes, tokens):
    """You refuse a model that fills the memory exactly. `at most` includes equality: use <=."""
    more = {name: (size + 1, each, most) for name, (size, each, most) in models.items()}
    return my_choice(more, gigabytes, tokens)


def choice_cases() -> Iterator[tuple]:
    """Machines of several sizes, texts of several lengths, and a memory that is exactly full."""
    models = {
        "nano": (2_474_240, 512, 8192),
        "120b": (65_248_815_744, 73_728, 131_072),
        "20b": (13_761_264_768, 49_152, 131_072),
    }
    for gigabytes, tokens in ((16, 4096), (16, 131_072), (80, 4096), (70, 131_072), (1, 100)):
        yield dict(models), gigabytes, tokens
    yield dict(models), 16, 8192
    yield dict(models), 12, 10_000
    yield {"a": (10**9 - 100, 10, 50), "b": (500, 10, 50)}, 1, 10
    yield {"a": (500, 1000, 50), "b": (600, 10, 50)}, 1, 10


def my_unused_share(ids, experts):
    """The share of a model's experts that no token chose, a float from 0 to 1.

    ids: [layer token slot], the numbers of the chosen experts, 0 to `experts` - 1. Every layer has
    its own `experts` experts.
    """
    used = sum(len(layer.unique()) for layer in ids)
    return 1 - used / (len(ids) * experts)


def layers_mixed(ids, experts):
    """You mix the layers. Expert 5 of layer 0 and expert 5 of layer 1 are two networks, so count
    in each layer separately.
    """
    return 1 - len(ids.unique()) / experts


def first_choice_only(ids, experts):
    """You look at the first choice only. An expert in slot 1, 2 or 3 was used, too."""
    return my_unused_share(ids[..., :1], experts)


def used_instead_of_unused(ids, experts):
    """You return the share of experts that were used. The task is the rest: one minus it."""
    return 1 - my_unused_share(ids, experts)


def one_layer(ids, experts):
    """You count in the first layer only. The share is over the experts of all layers."""
    return my_unused_share(ids[:1], experts)


def number_instead_of_share(ids, experts):
    """You return how many experts are unused. Divide by the number of experts in all layers."""
    return my_unused_share(ids, experts) * len(ids) * experts


def a_set_of_tensors(ids, experts):
    """You make a set of tensors, and no two tensors count as equal, whatever number they hold. Use
    `.unique()`, or make numbers of them first with `.tolist()`.
    """
    return 1 - sum(layer.numel() for layer in ids) / (len(ids) * experts)


def unused_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(12)
    for layers, tokens, experts in ((1, 3, 8), (4, 6, 32), (3, 10, 16), (24, 5, 32)):
        scores = torch.randn(layers, tokens, experts, generator=draw)
        yield scores.topk(4).indices, experts
    yield torch.tensor([[[0, 1], [2, 0]]]), 8


SHEET = Sheet(
    lesson="12_real_20b",
    title="Exercises: the real 20b",
    text="Read [12_real_20b](../12_real_20b.ipynb) first. No weights are needed.",
    exercises=(
        Exercise(
            title="The bytes of a checkpoint",
            text="Compute how many bytes tensors take. Two kinds of storage have different sizes.",
            solution=my_weight_bytes,
            cases=weight_cases,
            misconceptions=(
                scales_forgotten,
                a_byte_for_a_code,
                all_in_bfloat16,
                all_in_mxfp4,
                four_bytes_a_number,
            ),
            hints=(
                "Count the weights of each tensor, then turn weights into bytes by its dtype.",
                "`math.prod(shape)` is the number of weights. 32 MXFP4 weights are 16 bytes of"
                " codes and one byte of scale.",
                "For each pair: weights // 32 * 17 if the dtype is mxfp4, else weights * 2; add"
                " them up.",
            ),
            minutes=5,
            difficulty=1,
        ),
        Exercise(
            title="The longest text",
            text=(
                "Find how long a text may be before weights and KV cache exceed a memory. Ignore"
                " decoded experts."
            ),
            solution=my_longest_context,
            cases=context_cases,
            misconceptions=(
                gibibytes,
                weights_forgotten,
                keys_only,
                without_a_limit,
                below_zero,
                rounded_up,
                rounded_to_the_nearest,
            ),
            hints=(
                "What the weights leave is for the cache. Divide it by the bytes of one token.",
                "One token: keys and values (2), layers, kv heads, head_dim numbers, 2 bytes each."
                " The free bytes may be negative.",
                "per_token = 2 * layers * kv_heads * head_dim * 2; free = gigabytes * 10**9 -"
                " weights; free // per_token, at least 0 and at most `most`.",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="Choose a model",
            text="Choose the largest model that a machine can run with a text of a given length.",
            solution=my_choice,
            cases=choice_cases,
            misconceptions=(
                cache_ignored,
                length_ignored,
                first_that_fits,
                smallest_that_fits,
                almost_full,
            ),
            hints=(
                "Two conditions: the model can read so long a text, and weights and cache fit.",
                "`models.items()` gives a name and a tuple of three numbers. The cache is tokens"
                " times bytes per token.",
                "Collect the models that meet both conditions. Return the name with the largest"
                " weights, or None if there is none.",
            ),
            minutes=7,
            difficulty=2,
        ),
        Exercise(
            title="Unused experts",
            text=(
                "Measure how unevenly a model uses its experts. This is the number that the lesson"
                " compares with a random model."
            ),
            solution=my_unused_share,
            cases=unused_cases,
            misconceptions=(
                layers_mixed,
                first_choice_only,
                used_instead_of_unused,
                one_layer,
                number_instead_of_share,
                a_set_of_tensors,
            ),
            hints=(
                "Count, in each layer, how many different experts occur.",
                "`ids[layer]` is [token slot], and `.unique()` removes repetitions. There are"
                " len(ids) * experts experts.",
                "used = the sum of len(layer.unique()) over layers; return 1 - used / (len(ids) *"
                " experts).",
            ),
            minutes=5,
            difficulty=1,
        ),
    ),
)
