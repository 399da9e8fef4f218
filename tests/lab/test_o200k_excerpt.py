"""The excerpt of o200k gives its examples their true ids: compared with OpenAI's file."""

import pytest
import regex

from oss_lab.course.o200k_excerpt import (
    EXAMPLES,
    build_excerpt,
    list_published_ranks,
    read_excerpt,
)
from oss_lab.plots.merge_tree import join_pairs
from oss_lab.tokenizer import O200K_PATTERN, O200K_RANKS


@pytest.fixture(scope="module")
def published(o200k, vocab_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))
        return list_published_ranks()


def test_the_excerpt_is_up_to_date(published):
    assert len(published) == O200K_RANKS
    assert read_excerpt() == build_excerpt(published, EXAMPLES)


def test_the_excerpt_has_every_number(published):
    assert {token for token in published if token.isdigit()} <= read_excerpt().keys()


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_has_its_true_ids(text, o200k):
    ranks = read_excerpt()
    pieces = regex.findall(O200K_PATTERN, text)
    ids = [ranks[n.token] for each in pieces for n in join_pairs(each.encode(), ranks)[0]]
    assert ids == o200k.encode_ordinary(text)
