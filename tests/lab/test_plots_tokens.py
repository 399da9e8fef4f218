"""Text as pieces, and the tree of merges: what is drawn, the sentence, and limits."""

import pytest

from oss_lab.errors import LabError
from oss_lab.plots.figure import PLOTLY
from oss_lab.plots.lanes import lanes
from oss_lab.plots.merge_tree import join_pairs, merge_tree
from oss_lab.plots.pieces import pieces
from oss_lab.record.token_labels import TokenLabel
from oss_lab.tokenizer import load_vocabulary

START = "<|start|>"
SCRIPT = b"<script>"
RANKS = {bytes([byte]): byte for byte in range(256)} | {b"bc": 256, b"ab": 257, b"bcd": 258}


def test_pieces_counts_lists_and_escapes():
    passage = pieces({"mine": [SCRIPT, b" a", b"\xf0\x9f"], "long": [b"x"] * 17})
    sentence = "mine: 3 tokens (<script> | ␣a | F0 9F); long: 17 tokens."
    assert passage.sentence == sentence
    assert "<script>" not in passage.html
    assert passage.html.count("<span") == 20
    with pytest.raises(LabError, match="no rows"):
        pieces({})


def test_the_lowest_rank_is_joined_first():
    roots, joins = join_pairs(b"abcd", RANKS)
    assert [node.token for node in roots] == [b"a", b"bcd"]
    assert [(node.token, node.x, node.y) for node in joins] == [(b"bc", 1.5, 1), (b"bcd", 2.25, 2)]
    figure = merge_tree(b"abcd", RANKS)
    assert figure.sentence == "“abcd”: 2 joins of 4 bytes give 2 tokens: bc (256), bcd (258)."
    *lines, texts = figure._repr_mimebundle_()[PLOTLY]["data"]
    assert len(lines) == 4
    assert texts["text"][-1] == "<b>bcd</b><br>258"
    assert "bcd" in repr(figure.table())


def test_every_tree_of_nano_ends_in_the_tokenizers_token():
    encoding = load_vocabulary("nano")
    count = encoding.n_vocab - len(encoding.special_tokens_set)
    ranks = {encoding.decode_single_token_bytes(id): id for id in range(count)}
    for token in ranks:
        assert [node.token for node in join_pairs(token, ranks)[0]] == [token]


def test_a_tree_has_no_markup_and_a_limit():
    assert "&lt;" in merge_tree(b"<b>", RANKS).plotly.data[-1]["text"][0]
    assert merge_tree(b"a", RANKS).sentence == "“a”: 0 joins of 1 byte give 1 token."
    for piece in (b"", b"a" * 25):
        with pytest.raises(LabError, match="1 to 24 bytes"):
            merge_tree(piece, RANKS)


def stream(*messages):
    """Labels of messages (role, channel, number of tokens), each after a special token."""
    return [
        TokenLabel(text, n, role, channel, None, "format" if text == START else "content")
        for n, (role, channel, count) in enumerate(messages)
        for text in (START, *["<x>"] * count)
    ]


def test_a_lane_for_each_role_and_channel():
    figure = lanes(stream(("user", None, 3), ("assistant", "final", 2), ("tool", "final", 1)))
    assert figure.sentence == (
        "9 tokens, of which 3 are headers and special tokens; tokens of content, in order: user 3,"
        " final 2, tool 1."
    )
    format, user, final, tool = figure._repr_mimebundle_()[PLOTLY]["data"]
    assert (format["base"], format["x"]) == ([0, 4, 7], [1, 1, 1])
    assert [(bar["y"], bar["base"], bar["x"]) for bar in (user, final, tool)] == [
        (["user"], [1], [3]),
        (["final"], [5], [2]),
        (["tool"], [8], [1]),
    ]
    assert user["customdata"] == ["&lt;x&gt;&lt;x&gt;&lt;x&gt;"]
    assert "final" in repr(figure.table())
    assert lanes([TokenLabel("a")]).sentence.endswith("in order: none.")
    with pytest.raises(LabError, match="no tokens"):
        lanes([])
