"""Exercises of 04_attention: the mask and the softmax with a sink."""

from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_visible_keys(query_positions, key_positions, window):
    """Which keys each query may attend to.

    query_positions: [rows seq] and key_positions: [rows key], integers; a negative one is padding.
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
    """Around nano's window of 32, one token with a cache, padding, and no window."""
    for length in (1, 31, 32, 33, 40):
        positions = torch.arange(length)[None]
        yield positions, positions, 32
    yield torch.tensor([[39]]), torch.arange(40)[None], 32
    yield torch.arange(50)[None], torch.arange(50)[None], None
    padded = torch.arange(-3, 37)[None]
    yield padded, padded, 32


SHEET = Sheet(
    lesson="04_attention",
    title="Exercises: attention",
    text="Read [04_attention](../04_attention.ipynb) first.",
    exercises=(
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
    ),
)
