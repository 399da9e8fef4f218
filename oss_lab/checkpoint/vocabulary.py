"""Compare the vocabulary files in a checkpoint folder with the named vocabulary.

A vocabulary is found by its size, and its tokens come from a file with a known checksum, not from
the folder. A fine-tune with other tokens of the same number would then be read and written as
nonsense. So a `tokenizer.json` or `.tiktoken` file in the folder must have the same tokens, and the
same ids for Harmony's special tokens. Not compared: the pattern that splits text before merging.
"""

import json
from pathlib import Path
from typing import Any

import tiktoken

from oss_lab.errors import VocabularyError
from oss_lab.harmony.messages import Effort
from oss_lab.tokenizer import HARMONY_SPECIALS, parse_byte_level, parse_ranks

DEFAULT_EFFORT: dict[str, Effort] = {"nano": "high", "o200k_harmony": "medium"}
"""By vocabulary: Harmony's default, except for nano, which makes many mistakes below high."""

TOKENIZER = "tokenizer.json"
REMEDY = (
    "if the model was trained with {name}, remove that file; otherwise use token ids, with"
    " `oss-lab logits` or `oss-lab trace --tokens`"
)


def check_vocabulary(folder: Path, encoding: tiktoken.Encoding) -> None:
    """Raise VocabularyError if a file in the folder has other tokens than `encoding`.

    For a folder `original`, the tokenizer.json next to it counts too.
    """
    folders = [folder, folder.absolute().parent] if folder.name == "original" else [folder]
    for place in folders:
        if (place / TOKENIZER).is_file():
            _check_tokenizer_json(place / TOKENIZER, encoding)
    for file in sorted(folder.glob("*.tiktoken")):
        try:
            ranks = parse_ranks(file.read_bytes())
        except VocabularyError as error:
            raise VocabularyError(f"{file} cannot be read: {error}") from None
        _compare_ranks(file, ranks, encoding)


def _check_tokenizer_json(file: Path, encoding: tiktoken.Encoding) -> None:
    try:
        contents: Any = json.loads(file.read_bytes())
        vocabulary = contents["model"]["vocab"]
        ranks = parse_byte_level(vocabulary, _count_ranks(encoding))
        added = {each["content"]: each["id"] for each in contents.get("added_tokens", [])}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise VocabularyError(
            f"{file} is not a byte-level tokenizer, as {encoding.name} is;"
            f" {REMEDY.format(name=encoding.name)}"
        ) from None
    _compare_ranks(file, ranks, encoding)
    for token in HARMONY_SPECIALS:
        wanted = encoding.encode_single_token(token)
        found = added.get(token, vocabulary.get(token))
        if found != wanted:
            what = f"has no {token}" if found is None else f"gives {token} the id {found}"
            raise VocabularyError(
                f"{file} {what}, which is {wanted} in {encoding.name};"
                f" {REMEDY.format(name=encoding.name)}"
            )


def _compare_ranks(file: Path, ranks: dict[bytes, int], encoding: tiktoken.Encoding) -> None:
    theirs = {rank: token for token, rank in ranks.items()}
    ours = {
        rank: encoding.decode_single_token_bytes(rank) for rank in range(_count_ranks(encoding))
    }
    different = [n for n in sorted(ours.keys() | theirs.keys()) if ours.get(n) != theirs.get(n)]
    if different:
        first = different[0]
        raise VocabularyError(
            f"{file} is another vocabulary than {encoding.name}: {len(different):,} of"
            f" {len(ours):,} tokens differ, first id {first} ({theirs.get(first)!r} instead of"
            f" {ours.get(first)!r}); {REMEDY.format(name=encoding.name)}"
        )


def _count_ranks(encoding: tiktoken.Encoding) -> int:
    """Number of tokens that are not special; their ids come first."""
    return min(encoding.encode_single_token(token) for token in encoding.special_tokens_set)
