"""The special tokens of a vocabulary, by name and by id.

Harmony is spelled with nine special tokens. Their names are the same in every vocabulary, their
ids are not, so ids are always looked up. Any tiktoken `Encoding` that has the names will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import tiktoken

from oss_lab.errors import VocabularyError
from oss_lab.tokenizer import HARMONY_SPECIALS

START, END, MESSAGE = "<|start|>", "<|end|>", "<|message|>"
CHANNEL, CONSTRAIN = "<|channel|>", "<|constrain|>"
RETURN, CALL = "<|return|>", "<|call|>"
ENDOFTEXT = "<|endoftext|>"
STOPS = (RETURN, END, CALL)


@dataclass(frozen=True, slots=True)
class Specials:
    """The special tokens of one vocabulary.

    Attributes:
        ids: name -> id of Harmony's nine.
        names: id -> name of every special token of the vocabulary, reserved ones included.
    """

    ids: Mapping[str, int]
    names: Mapping[int, str]


@lru_cache(maxsize=8)
def specials(encoding: tiktoken.Encoding) -> Specials:
    """Look up the special tokens of `encoding`.

    Raises:
        VocabularyError: one of Harmony's nine is missing.
    """
    known = encoding.special_tokens_set
    missing = [name for name in HARMONY_SPECIALS if name not in known]
    if missing:
        raise VocabularyError(
            f"vocabulary {encoding.name!r} has no {missing[0]}; use one made for Harmony, such as"
            " o200k_harmony"
        )
    # Two names may share an id (200018 in tiktoken's o200k_harmony): the reserved one wins, which
    # is the only name that openai-harmony knows.
    names = {encoding.encode_single_token(name): name for name in sorted(known)}
    ids = {name: encoding.encode_single_token(name) for name in HARMONY_SPECIALS}
    return Specials(MappingProxyType(ids), MappingProxyType(names))


def token_bytes(encoding: tiktoken.Encoding, token: int) -> bytes | None:
    """The bytes that `token` stands for, a special token's name included; None if there is none."""
    name = specials(encoding).names.get(token)
    if name is not None:
        return name.encode()
    try:
        return encoding.decode_single_token_bytes(token)
    except (KeyError, OverflowError):  # tiktoken: no such id; negative or beyond 32 bits
        return None


def stop_tokens(encoding: tiktoken.Encoding, *, for_sampling: bool = False) -> frozenset[int]:
    """Ids that end a message; with `for_sampling` those that end the assistant's turn.

    `<|end|>` is missing from the second set: after it the model goes on with its next message.
    """
    names = (RETURN, CALL) if for_sampling else STOPS
    return frozenset(specials(encoding).ids[name] for name in names)
