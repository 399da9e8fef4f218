"""Byte-pair encoding in Python: how a piece of text becomes tokens.

tiktoken cuts a text into pieces (words, numbers, spaces) and encodes each piece separately, in
Rust. `merge_bytes` is that step as a loop. `MergingEncoding` is a vocabulary that encodes with it,
or with another function of the same arguments.
"""

import re
from collections.abc import Callable, Collection, Mapping, Set
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import regex  # tiktoken's patterns need character classes that `re` does not have
import tiktoken

Merge = Callable[[bytes, Mapping[bytes, int]], list[int]]
"""`merge_bytes`, or another function of the same arguments."""


def merge_bytes(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The ids of a piece: join neighbors, the pair of the lowest rank first, until none has a rank.

    A rank is a token's id, and the order in which training learned the merges. Of two equal pairs
    the left one is joined first. A piece that is a token is not merged.
    """
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[n : n + 1] for n in range(len(piece))]
    while True:
        joined = [left + right for left, right in pairwise(parts)]
        known = [(ranks[both], n) for n, both in enumerate(joined) if both in ranks]
        if not known:
            return [ranks[part] for part in parts]
        _, place = min(known)
        parts[place : place + 2] = [joined[place]]


class MergingEncoding(tiktoken.Encoding):
    """A vocabulary whose `encode` and `encode_ordinary` call `merge` for every piece.

    Pieces, ids and special tokens are those of `encoding`.
    """

    def __init__(self, encoding: tiktoken.Encoding, merge: Merge = merge_bytes) -> None:
        pattern, ranks = encoding._pat_str, encoding._mergeable_ranks
        super().__init__(
            encoding.name,
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens=encoding._special_tokens,
        )
        self._merge, self._pattern = merge, regex.compile(pattern)
        self._read_only = MappingProxyType(ranks)

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text; special tokens in it are ordinary text."""
        # As in tiktoken, surrogate pairs are joined and lone surrogates replaced.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        pieces = (match[0].encode() for match in self._pattern.finditer(text))
        return [id for piece in pieces for id in self._merge(piece, self._read_only)]

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Set[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """As in tiktoken: allowed special tokens become their ids, disallowed ones are an error."""
        super().encode(  # raises for a disallowed special token
            text, allowed_special=allowed_special, disallowed_special=disallowed_special
        )
        allowed = self.special_tokens_set if allowed_special == "all" else allowed_special
        if not allowed:
            return self.encode_ordinary(text)
        parts = re.split(f"({'|'.join(map(re.escape, allowed))})", text)
        return [
            id
            for part in parts
            for id in (
                [self.encode_single_token(part)] if part in allowed else self.encode_ordinary(part)
            )
        ]
