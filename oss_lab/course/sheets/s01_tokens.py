"""Exercises of 01_tokens: merge a piece, encode a text, and show text while tokens arrive."""

import codecs
import re
from collections.abc import Iterator
from itertools import pairwise

from oss_lab.course.exercise import Exercise, Sheet

# A small vocabulary in which every wrong order of the joins shows.
LEARNED = ("at", "in", "ain", "rain", " r", "an", "hand", "tr", "ra", "th", "the", "he", "aa")
RANKS = {bytes([byte]): byte for byte in range(256)}
RANKS |= {token.encode(): 256 + n for n, token in enumerate(LEARNED)}
WORDS = (
    "rain",
    " rain",
    "the",
    "train",
    "tra",
    "aat",
    "hand",
    "aaa",
    "aaaa",
    "x",
    "cat",
    "é",
    "人",
)


def my_merge(piece, ranks):
    """The ids of one piece: join neighbors, the lowest rank first, until no join is known.

    piece: bytes, at least one.
    ranks: the rank of each token, which is also its id; every single byte is a token.
    Returns a list of ids. Of two equal joins, the left one comes first.
    """
    parts = [bytes([byte]) for byte in piece]
    while True:
        joins = [parts[n] + parts[n + 1] for n in range(len(parts) - 1)]
        known = [join for join in joins if join in ranks]
        if not known:
            return [ranks[part] for part in parts]
        n = joins.index(min(known, key=ranks.get))
        parts[n : n + 2] = [joins[n]]


def leftmost_pair_first(piece, ranks):
    """You join the leftmost pair that is in the vocabulary. Join the one with the lowest rank:
    that is the order in which the pairs were learned. Only 4 of nano's 368 longer tokens show the
    mistake, so it does not change most answers.
    """
    parts, n = [bytes([byte]) for byte in piece], 0
    while n < len(parts) - 1:
        join = parts[n] + parts[n + 1]
        if join in ranks:
            parts[n : n + 2] = [join]
            n = 0
        else:
            n += 1
    return [ranks[part] for part in parts]


def highest_rank_first(piece, ranks):
    """You join the pair with the highest rank. A low rank means learned early, so the lowest rank
    comes first.
    """
    return my_merge_by(piece, ranks, max)


def one_pass(piece, ranks):
    """You stop after one join. Repeat until no join of neighbors is in the vocabulary, since a
    joined token can be part of a longer one.
    """
    parts = [bytes([byte]) for byte in piece]
    joins = [a + b for a, b in pairwise(parts)]
    known = [join for join in joins if join in ranks]
    if known:
        n = joins.index(min(known, key=ranks.get))
        parts[n : n + 2] = [joins[n]]
    return [ranks[part] for part in parts]


def longest_token_first(piece, ranks):
    """You take the longest token from the left. That is not byte-pair encoding: a token can be
    reached only through joins of two neighbors, the lowest rank first.
    """
    ids, at = [], 0
    while at < len(piece):
        end = max(n for n in range(at + 1, len(piece) + 1) if piece[at:n] in ranks)
        ids.append(ranks[piece[at:end]])
        at = end
    return ids


def bytes_only(piece, ranks):
    """You return the bytes without joining them. Two neighbors become one token if their join is
    in the vocabulary.
    """
    return [ranks[bytes([byte])] for byte in piece]


def my_merge_by(piece, ranks, choose):
    parts = [bytes([byte]) for byte in piece]
    while known := [a + b for a, b in pairwise(parts) if a + b in ranks]:
        n = [a + b for a, b in pairwise(parts)].index(choose(known, key=ranks.get))
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    return [ranks[part] for part in parts]


def merge_cases() -> Iterator[tuple]:
    for word in WORDS:
        yield word.encode(), dict(RANKS)


PATTERN = r" ?[a-z]+|\d|\s+|[^a-z\d\s]+"


def merge_known(piece: bytes) -> list[int]:
    """The `merge` that the exercise gives."""
    return my_merge(piece, RANKS)


def my_encode(text, pattern, merge):
    """The ids of a text: cut it into pieces, and merge each piece by itself.

    pattern: a regular expression; its matches, in order, are the pieces and cover the text.
    merge: a function that returns the ids of a piece, given as bytes.
    """
    ids = []
    for piece in re.findall(pattern, text):
        ids += merge(piece.encode())
    return ids


def without_pieces(text, pattern, merge):
    """You merge the whole text at once, so tokens cross the border between pieces. Cut the text
    with the pattern first.
    """
    return merge(text.encode())


def characters_as_bytes(text, pattern, merge):
    """You take each character's number as one byte. UTF-8 has several bytes for a character that
    is not in ASCII: use `piece.encode()`.
    """
    pieces = re.findall(pattern, text)
    return [i for piece in pieces for i in merge(bytes(ord(letter) % 256 for letter in piece))]


def without_white_space(text, pattern, merge):
    """You lose white space. The pieces cover the whole text: a space is part of the piece after
    it, or a piece.
    """
    return [i for piece in re.findall(pattern, text) for i in merge(piece.strip().encode())]


def nested_lists(text, pattern, merge):
    """You return one list per piece. The model reads one sequence: join the lists."""
    return [merge(piece.encode()) for piece in re.findall(pattern, text)]


def encode_cases() -> Iterator[tuple]:
    for text in (
        "the rain",
        "in the hand",
        "a 12 in",
        "1a t",
        "thé 人",
        "",
        "<|start|>the",
        "The rain ",
    ):
        yield text, PATTERN, merge_known
    yield "abat inat", "[ab]+|[^ab]+", merge_known


def my_stream_text(tokens):
    """The text that a program shows after each token, as early as possible.

    tokens: a list of bytes objects; together they are valid UTF-8, but one may end inside a
        character.
    Returns a list of texts, one for each token. A token that completes no character gives "".
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in tokens]


def each_token_alone(tokens):
    """You decode each token alone, so a character that is split over tokens becomes several `�`.
    Keep the bytes of an incomplete character until the rest has arrived.
    """
    return [token.decode(errors="replace") for token in tokens]


def incomplete_ignored(tokens):
    """You drop the bytes of characters that are split over tokens, so they are never shown. Keep
    these bytes until the rest has arrived.
    """
    return [token.decode(errors="ignore") for token in tokens]


def everything_at_the_end(tokens):
    """You wait for the last token. Show each character as soon as it is complete."""
    return [""] * (len(tokens) - 1) + [b"".join(tokens).decode()] if tokens else []


def complete_ones_held_back(tokens):
    """You hold back complete characters if the token also has the beginning of another one. Only
    the bytes of the incomplete character have to wait.
    """
    shown, waiting = [], b""
    for token in tokens:
        waiting += token
        try:
            shown.append(waiting.decode())
            waiting = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def stream_cases() -> Iterator[tuple]:
    smile = "🙂".encode()
    yield ([b"ok ", smile[:2], smile[2:], b"!"],)
    yield ([bytes([byte]) for byte in "né人".encode()],)
    yield ([b"a" + smile[:1], smile[1:] + b"b" + smile[:3], smile[3:]],)
    yield ([b"347"],)
    yield ([],)


SHEET = Sheet(
    lesson="01_tokens",
    title="Exercises: tokens",
    text="Read [01_tokens](../01_tokens.ipynb) first.",
    exercises=(
        Exercise(
            title="Merge a piece",
            text=(
                "Encode one piece by byte-pair encoding. Of all neighbors whose join is in the"
                " vocabulary, join those with the lowest rank, and repeat until there are none."
            ),
            solution=my_merge,
            cases=merge_cases,
            misconceptions=(
                leftmost_pair_first,
                highest_rank_first,
                one_pass,
                longest_token_first,
                bytes_only,
            ),
            hints=(
                "Begin with the single bytes. Which joins of two neighbors are in `ranks`, and"
                " which of them has the lowest rank?",
                "`parts` is a list of bytes objects. A list of n parts has n - 1 joins"
                " `parts[i] + parts[i + 1]`.",
                "Repeat: list the joins; keep those in `ranks`; if there are none, return the rank"
                " of each part; else find the place of the lowest rank and replace the two parts by"
                " their join.",
            ),
            minutes=10,
            difficulty=2,
            part="merge",
        ),
        Exercise(
            title="Encode a text",
            text=(
                "Cut the text into pieces with the pattern, and merge each piece. A special token's"
                " name in the text is text like any other."
            ),
            solution=my_encode,
            cases=encode_cases,
            misconceptions=(
                without_pieces,
                characters_as_bytes,
                without_white_space,
                nested_lists,
            ),
            hints=(
                "There is a function of Python's module `re` that returns all matches in order.",
                "`re.findall(pattern, text)` is a list of texts; `merge` needs bytes.",
                "For each piece: `merge(piece.encode())`, and add the ids to one list.",
            ),
            minutes=5,
            difficulty=1,
            imports="import re",
        ),
        Exercise(
            title="Show text while tokens arrive",
            text=(
                "A token can end inside a character. Return what a program can show after each"
                " token: every complete character at once, and nothing of an incomplete one."
            ),
            solution=my_stream_text,
            cases=stream_cases,
            misconceptions=(
                each_token_alone,
                incomplete_ignored,
                everything_at_the_end,
                complete_ones_held_back,
            ),
            hints=(
                "Some bytes have to wait for the next token. Which ones, and where do you keep"
                " them?",
                "In UTF-8 a first byte below 128 is a whole character; from 192, 224 and 240 the"
                " character has 2, 3 and 4 bytes.",
                "Python has it ready: `codecs.getincrementaldecoder('utf-8')()` makes a decoder"
                " whose `decode(token)` returns the complete characters and keeps the rest.",
            ),
            minutes=8,
            difficulty=2,
            imports="import codecs",
        ),
    ),
)
