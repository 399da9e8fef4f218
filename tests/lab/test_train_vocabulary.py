"""nano's vocabulary: merges from hand-made counts, single digits, and the shipped file from its
seed."""

from collections import Counter

import pytest

from oss_lab.nano.tasks.free_text import REFUSAL
from oss_lab.nano.tasks.questions import KEYS
from oss_lab.nano.training.vocabulary import (
    ASSET,
    CORPUS_PROBLEMS,
    MERGES,
    count_corpus_pieces,
    train_ranks,
)
from oss_lab.tokenizer import dump_ranks, load_vocabulary


def test_merges_are_the_most_frequent_pairs():
    ranks = train_ranks(Counter({"aab": 3, "ab": 2, "cd": 4}), 3)
    assert list(ranks)[256:] == [b"ab", b"cd", b"aab"]
    assert sorted(ranks.values()) == list(range(259))


def test_ties_are_decided_by_the_bytes():
    for words in (["xy", "ab"], ["ab", "xy"]):
        assert list(train_ranks(Counter(words), 1))[256:] == [b"xy"]


def test_digits_are_never_merged_and_tokens_are_short():
    encoding = load_vocabulary("nano")
    assert len(encoding.encode_ordinary("1234567890")) == 10
    assert len(encoding.encode_ordinary(REFUSAL)) < len(REFUSAL) / 2
    assert all(len(encoding.encode_ordinary(f" {key}")) == 1 for key in KEYS)
    for text in ("你好 🙂", "\x00\xff", "a" * 50):
        assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_the_corpus_has_no_special_tokens():
    assert not any("<|" in piece for piece in count_corpus_pieces(seed=0, problems=50))


@pytest.mark.slow
def test_the_shipped_vocabulary_follows_from_its_corpus():
    ranks = train_ranks(count_corpus_pieces(seed=0, problems=CORPUS_PROBLEMS), MERGES)
    assert dump_ranks(ranks) == ASSET.read_bytes()
