"""The special tokens of a vocabulary, by name and by id.

Harmony uses nine special tokens. Their names are the same in every vocabulary, but their ids are
not, so ids are always looked up. Any tiktoken `Encoding` that has the names works.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import tiktoken

from oss_lab.errors import HarmonyError, VocabularyError
from oss_lab.tokenizer import HARMONY_SPECIALS

START, END, MESSAGE = "<|start|>", "<|end|>", "<|message|>"
CHANNEL, CONSTRAIN = "<|channel|>", "<|constrain|>"
RETURN, CALL = "<|return|>", "<|call|>"
ENDOFTEXT = "<|endoftext|>"
STOPS = (RETURN, END, CALL)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of one vocabulary.

    Attributes:
        ids: name -> id of Harmony's nine tokens.
        names: id -> name of every special token of the vocabulary, including reserved ones.
    """

    ids: Mapping[str, int]
    names: Mapping[int, str]


@lru_cache(maxsize=8)
def find_special_tokens(encoding: tiktoken.Encoding) -> SpecialTokens:
    """Look up the special tokens of `encoding`.

    Raises:
        VocabularyError: one of Harmony's nine tokens is missing.
    """
    known = encoding.special_tokens_set
    missing = [name for name in HARMONY_SPECIALS if name not in known]
    if missing:
        raise VocabularyError(
            f"vocabulary {encoding.name!r} has no {missing[0]}; use one made for Harmony, such as"
            " o200k_harmony"
        )
    # Two names may share an id (200018 in tiktoken's o200k_harmony). The reserved name wins: it is
    # the only one that openai-harmony knows.
    names = {encoding.encode_single_token(name): name for name in sorted(known)}
    ids = {name: encoding.encode_single_token(name) for name in HARMONY_SPECIALS}
    return SpecialTokens(MappingProxyType(ids), MappingProxyType(names))


def token_bytes(encoding: tiktoken.Encoding, token: int) -> bytes | None:
    """The bytes of `token`; for a special token, its name. None if there is no such token."""
    name = find_special_tokens(encoding).names.get(token)
    if name is not None:
        return name.encode()
    try:
        return encoding.decode_single_token_bytes(token)
    except (KeyError, OverflowError):  # no such id; negative or more than 32 bits
        return None


def stop_tokens(encoding: tiktoken.Encoding, *, for_sampling: bool = False) -> frozenset[int]:
    """Ids that end a message; with `for_sampling`, those that end the assistant's turn.

    The second set lacks `<|end|>`: after it the model continues with its next message.
    """
    names = (RETURN, CALL) if for_sampling else STOPS
    return frozenset(find_special_tokens(encoding).ids[name] for name in names)


def iterate_ids(tokens: Any) -> Iterator[int]:
    """One id or several, as ints. Text is refused: its characters are not ids.

    Raises:
        HarmonyError: something is not an integer.
    """
    try:
        yield operator.index(tokens)
        return
    except TypeError:
        if isinstance(tokens, str | bytes | bytearray):
            raise HarmonyError("expected token ids, got text; encode it first") from None
        if not isinstance(tokens, Iterable):
            raise HarmonyError(f"expected token ids, got {tokens!r}") from None
    for token in tokens:
        try:
            yield operator.index(token)
        except TypeError:
            raise HarmonyError(f"expected token ids, got {token!r} among them") from None
