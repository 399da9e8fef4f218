"""Exercises of 04_attention: scores, mask, the softmax with a sink, and the size of the cache."""

import math
from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_visible_keys(query_positions, key_positions, window):
    """Which keys each query may attend to.

    query_positions: [rows seq] and key_positions: [rows key], integers. Padding, which
        fills up the shorter texts of a batch, has negative positions: no query sees it.
    window: how many keys a query sees at most, its own included; None if there is no window.
    Returns booleans [rows seq key]: True where the query sees the key.
    """
    back = query_positions[:, :, None] - key_positions[:, None, :]
    visible = (back >= 0) & (key_positions >= 0)[:, None, :]
    return visible if window is None else visible & (back < window)


def window_one_too_large(query_positions, key_positions, window):
    """Your window is one key too large. A query sees at most `window` keys, its own included, so
    a key exactly `window` positions back is hidden.
    """
    return my_visible_keys(query_positions, key_positions, window and window + 1)


def window_one_too_small(query_positions, key_positions, window):
    """Your window is one key too small. The query's own key is one of the `window` keys that it
    sees, so the farthest is `window - 1` positions back.
    """
    return my_visible_keys(query_positions, key_positions, window and window - 1)


def later_keys_visible(query_positions, key_positions, window):
    """Your queries see later keys. A token must not see the tokens after it, because they do not
    exist yet when the model writes it.
    """
    back = query_positions[:, :, None] - key_positions[:, None, :]
    visible = (key_positions >= 0)[:, None, :].expand(back.shape)
    return visible if window is None else visible & (back < window)


def own_key_hidden(query_positions, key_positions, window):
    """Your queries do not see their own key. A token may attend to itself."""
    visible = my_visible_keys(query_positions, key_positions, window)
    return visible & (query_positions[:, :, None] != key_positions[:, None, :])


def no_window(query_positions, key_positions, window):
    """You do not use `window`. In a sliding layer, keys far back are hidden."""
    return my_visible_keys(query_positions, key_positions, None)


def padding_visible(query_positions, key_positions, window):
    """You do not hide padding. A key at a negative position is not a token: no query sees it."""
    back = query_positions[:, :, None] - key_positions[:, None, :]
    return (back >= 0) if window is None else (back >= 0) & (back < window)


def mask_cases() -> Iterator[tuple]:
    """Around nano's window of 32, one token with a cache, padding, no window, and two rows."""
    for length in (1, 31, 32, 33, 40):
        positions = torch.arange(length)[None]
        yield positions, positions.clone(), 32
    yield torch.tensor([[39]]), torch.arange(40)[None], 32
    yield torch.arange(50)[None], torch.arange(50)[None], None
    padded = torch.arange(-3, 37)[None]
    yield padded, padded.clone(), 32
    yield torch.tensor([[3, 9], [-1, 5]]), torch.tensor([[9, 1, 3, -2], [4, 5, 2, 6]]), 5


def my_attention_scores(q, k):
    """How well each key fits each query.

    q: [batch head seq head_dim], the queries.
    k: [rows kv_head key head_dim], the keys; rows is batch, or 1 if all sequences share the keys.
    There are more heads than kv heads: neighboring heads share one. With 8 heads and 2 kv heads,
    heads 0 to 3 use kv head 0.
    Returns the products of queries and keys, divided by the root of head_dim:
    [batch head seq key].
    """
    group = q.shape[1] // k.shape[1]
    keys = k.repeat_interleave(group, dim=1)  # [rows head key head_dim]
    return q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])


def root_forgotten(q, k):
    """You do not divide by the root of head_dim. The scores are too far apart, the softmax is too
    sharp, and nano answers few products.
    """
    return my_attention_scores(q, k) * math.sqrt(q.shape[-1])


def head_dim_itself(q, k):
    """You divide by head_dim, not by its root. The sum of that many products grows with the root of
    their number.
    """
    return my_attention_scores(q, k) / math.sqrt(q.shape[-1])


def heads_dealt_out(q, k):
    """You group the heads the wrong way: like dealing cards, heads 0, 2, 4 and 6 to kv head 0. In
    gpt-oss neighbors share a kv head: head j uses kv head j // group.
    """
    keys = k.repeat(1, q.shape[1] // k.shape[1], 1, 1)
    return q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])


def first_kv_head_only(q, k):
    """All of your heads use kv head 0. Each group of heads has its own kv head."""
    return my_attention_scores(q, k[:, :1])


def queries_normalized(q, k):
    """You divide by the lengths of the vectors: that is the cosine of their angle. The model learns
    the lengths, too, and divides only by the root of head_dim.
    """
    lengths = q.norm(dim=-1, keepdim=True)
    return my_attention_scores(q / lengths, k / k.norm(dim=-1, keepdim=True))


def score_cases() -> Iterator[tuple]:
    """nano's and other numbers of heads, one token, and keys that two sequences share."""
    draw = torch.Generator().manual_seed(5)
    for rows, heads, kv_heads, seq, keys in ((1, 8, 2, 3, 3), (1, 8, 4, 1, 7), (2, 4, 2, 2, 5)):
        yield (
            torch.randn(rows, heads, seq, 16, generator=draw),
            torch.randn(rows, kv_heads, keys, 16, generator=draw),
        )
    yield torch.randn(2, 8, 1, 4, generator=draw), torch.randn(1, 2, 6, 4, generator=draw)


def my_softmax_with_sink(scores, sinks):
    """Turn the scores of a query into shares, of which the sink takes one.

    scores: [batch head seq key]. The score of a hidden key is -inf.
    sinks: [batch head], one learned number per head: one more score, the same for every query.
    Returns the shares of the keys [batch head seq key], and those of the sinks [batch head seq].
    A query's shares and its sink's share sum to one.
    """
    sink = sinks[:, :, None]
    largest = torch.maximum(scores.amax(dim=-1), sink)  # [batch head seq]
    powers = (scores - largest[..., None]).exp()
    own = (sink - largest).exp()
    total = powers.sum(dim=-1) + own
    return powers / total[..., None], own / total


def sink_dropped(scores, sinks):
    """You drop the sink: the shares of the keys must not sum to one. nano still answers everything
    without sinks; only its logits change.
    """
    return my_softmax_with_sink(scores, torch.full_like(sinks, -torch.inf))


def sink_is_zero(scores, sinks):
    """You use a sink of 0 in every head. Each head has learned its own: use `sinks`."""
    return my_softmax_with_sink(scores, torch.zeros_like(sinks))


def first_sink_for_all(scores, sinks):
    """All of your heads use the sink of head 0. `sinks` has one number per head."""
    return my_softmax_with_sink(scores, sinks[:, :1].expand(sinks.shape))


def sink_as_a_key(scores, sinks):
    """You return the sink as one more key. It takes part in the softmax, but it has no value to
    pass on: return its share separately.
    """
    shares, own = my_softmax_with_sink(scores, sinks)
    return torch.cat((shares, own[..., None]), dim=-1), own


def shares_sum_to_one(scores, sinks):
    """You divide the shares of the keys by their own sum, so they sum to one. The sink's share must
    be missing there: a head may look at nothing.
    """
    shares, own = my_softmax_with_sink(scores, sinks)
    return shares / shares.sum(dim=-1, keepdim=True), own


def powers_overflow(scores, sinks):
    """Your exponentials overflow: exp(100) is infinite in float32. First subtract the largest score
    of the query, the sink included. That changes no share.
    """
    powers, own = scores.exp(), sinks[:, :, None].exp()
    total = powers.sum(dim=-1) + own
    return powers / total[..., None], own / total


def sink_cases() -> Iterator[tuple]:
    """Ordinary scores, large ones, hidden keys, a query that sees nothing, and two sequences."""
    draw = torch.Generator().manual_seed(6)
    sinks = torch.tensor([[0.9, -0.4, 1.7]])
    yield torch.randn(1, 3, 2, 4, generator=draw), sinks.clone()
    yield 40 * torch.randn(1, 3, 2, 4, generator=draw) + 100, 90 * sinks
    hidden = torch.randn(1, 3, 2, 4, generator=draw)
    hidden[..., 0, 1:] = -torch.inf
    hidden[..., 1, :] = -torch.inf
    yield hidden, sinks.clone()
    scores = torch.randn(2, 3, 2, 4, generator=draw)
    scores[1, :, 0] -= 150  # far below the sink
    yield scores, torch.randn(2, 3, generator=draw)


def my_cache_bytes(tokens, layers, kv_heads, head_dim, window):
    """The bytes of a KV cache that stores no more than its layers read.

    Every layer stores a key and a value of `head_dim` numbers for each token and kv head, in
    bfloat16: 2 bytes a number. Layers 0, 2, 4, ... are sliding and read the newest `window` tokens.
    """
    per_token = 2 * kv_heads * head_dim * 2
    sliding = (layers + 1) // 2
    full = layers - sliding
    return per_token * (sliding * min(tokens, window) + full * tokens)


def keys_without_values(tokens, layers, kv_heads, head_dim, window):
    """You count only keys or only values. A layer stores both for every token."""
    return my_cache_bytes(tokens, layers, kv_heads, head_dim, window) // 2


def numbers_not_bytes(tokens, layers, kv_heads, head_dim, window):
    """You count four bytes a number, as in float32. bfloat16 has two."""
    return my_cache_bytes(tokens, layers, kv_heads, head_dim, window) * 2


def window_ignored(tokens, layers, kv_heads, head_dim, window):
    """You store every token in every layer. A sliding layer never reads a token that has left its
    window.
    """
    return my_cache_bytes(tokens, layers, kv_heads, head_dim, max(tokens, window))


def window_everywhere(tokens, layers, kv_heads, head_dim, window):
    """You use the window in all layers. The full layers, 1, 3, 5, ..., read every token."""
    return my_cache_bytes(min(tokens, window), layers, kv_heads, head_dim, window)


def window_always_full(tokens, layers, kv_heads, head_dim, window):
    """You store a whole window even if the text is shorter."""
    per_token, sliding = 4 * kv_heads * head_dim, (layers + 1) // 2
    return per_token * (sliding * window + (layers - sliding) * tokens)


def cache_cases() -> Iterator[tuple]:
    """nano, the published models, an odd number of layers, and a short text."""
    yield 8192, 4, 2, 16, 32
    yield 131_072, 24, 8, 64, 128
    yield 131_072, 36, 8, 64, 128
    yield 1000, 5, 2, 16, 32
    yield 20, 4, 2, 16, 32


SHEET = Sheet(
    lesson="04_attention",
    title="Exercises: attention",
    text=(
        "Read [04_attention](../04_attention.ipynb) first. nano reads several texts at once, a"
        " **batch**, so the tensors here have one axis more than in the lesson: `batch`, or `rows`,"
        " which is 1 if all texts share a value."
    ),
    exercises=(
        Exercise(
            title="Scores",
            text=(
                "Multiply every query with every key of its group, and divide by the root of"
                " head_dim."
            ),
            solution=my_attention_scores,
            cases=score_cases,
            misconceptions=(
                root_forgotten,
                head_dim_itself,
                heads_dealt_out,
                first_kv_head_only,
                queries_normalized,
            ),
            hints=(
                "Repeat each kv head for the heads that share it; then every head has keys.",
                "`k.repeat_interleave(group, dim=1)` is [rows head key head_dim]; its transpose"
                " [rows head head_dim key] can be multiplied with q from the left.",
                "group = heads / kv heads; repeat k; q @ keys transposed, divided by the root.",
            ),
            minutes=8,
            difficulty=2,
            part="attention_scores",
        ),
        Exercise(
            title="The mask",
            text=(
                "Decide which keys each query may see: its own and earlier ones, and in a sliding"
                " layer only the newest `window` of them."
            ),
            solution=my_visible_keys,
            cases=mask_cases,
            misconceptions=(
                window_one_too_large,
                window_one_too_small,
                later_keys_visible,
                own_key_hidden,
                no_window,
                padding_visible,
            ),
            hints=(
                "How far back is each key from each query? Compare that with 0 and `window`.",
                "`query_positions[:, :, None]` is [rows seq 1] and `key_positions[:, None, :]` is"
                " [rows 1 key]; their difference is [rows seq key].",
                "back = query - key; visible if back >= 0 and key >= 0, and if there is a window,"
                " back < window.",
            ),
            minutes=8,
            difficulty=1,
            part="visible_keys",
        ),
        Exercise(
            title="The softmax with a sink",
            text=(
                "Turn the scores of every query into shares: the exponential of each score, divided"
                " by the sum of them all and of the exponential of the sink."
            ),
            solution=my_softmax_with_sink,
            cases=sink_cases,
            misconceptions=(
                sink_dropped,
                sink_is_zero,
                first_sink_for_all,
                sink_as_a_key,
                shares_sum_to_one,
                powers_overflow,
            ),
            hints=(
                "The sink is one more score in the softmax, but not one more key in the result.",
                "`sinks[:, :, None, None].expand(*scores.shape[:-1], 1)` is a column"
                " [batch head seq 1] that can be put next to the scores.",
                "Put the column after the scores, take the softmax over the last axis, then return"
                " all columns but the last, and the last.",
            ),
            minutes=8,
            difficulty=2,
            part="softmax_with_sink",
        ),
        Exercise(
            title="The size of the cache",
            text=(
                "Count the bytes of the keys and values of one text, if each layer stores only what"
                " it can still read."
            ),
            solution=my_cache_bytes,
            cases=cache_cases,
            misconceptions=(
                keys_without_values,
                numbers_not_bytes,
                window_ignored,
                window_everywhere,
                window_always_full,
            ),
            hints=(
                "How many bytes does one token need in one layer? How many tokens are kept?",
                "A token in one layer: 2 vectors (key and value), each kv_heads * head_dim numbers"
                " of 2 bytes. Half of the layers are sliding, rounded up.",
                "per token * (sliding layers * min(tokens, window) + full layers * tokens).",
            ),
            minutes=6,
            difficulty=1,
        ),
    ),
)
