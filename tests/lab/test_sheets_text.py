"""The solutions of the sheets on tokens and Harmony are what the library does."""

import random

import pytest

from oss_lab.course.byte_pairs import merge_bytes
from oss_lab.course.sheets import s01_tokens, s02_harmony
from oss_lab.harmony import Conversation, render
from oss_lab.harmony.chat_parts import parse_reply, render_message
from oss_lab.harmony.policy import find_dropped_messages


def test_merges_are_the_librarys():
    dice = random.Random(0)
    for _ in range(300):
        piece = "".join(dice.choices("raintheé人 ", k=8)).encode()
        assert s01_tokens.my_merge(piece, s01_tokens.RANKS) == merge_bytes(piece, s01_tokens.RANKS)


@pytest.mark.parametrize(("message", "encoding"), list(s02_harmony.render_cases()))
def test_a_message_is_written_as_the_library_does(message, encoding):
    assert s02_harmony.my_render(message, encoding) == render_message(message, encoding)
    assert (
        s02_harmony.my_render(message, encoding)
        == render(Conversation.of(message), encoding, mode="conversation").tokens
    )


@pytest.mark.parametrize(("ids", "encoding"), list(s02_harmony.parse_cases()))
def test_a_reply_is_read_as_the_library_does(ids, encoding):
    assert s02_harmony.my_parse(ids, encoding) == parse_reply(ids, encoding)


@pytest.mark.parametrize("messages", [case[0] for case in s02_harmony.history_cases()])
def test_a_history_is_that_of_the_policy(messages):
    dropped = find_dropped_messages(messages, "spec", "completion")
    expected = [message for n, message in enumerate(messages) if n not in dropped]
    assert s02_harmony.my_history(messages) == expected
