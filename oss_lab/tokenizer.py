r"""The two vocabularies as tiktoken Encodings, and the search for their files.

`o200k_harmony` has o200k_base's 199,998 byte-pair ranks and pre-tokenizer, and Harmony's special
tokens. OpenAI publishes the ranks as a 3.6 MB file, which tiktoken's wheels do not contain. The
file is therefore searched in several places, and its sha256 is checked in each. `nano` is the
640-token vocabulary inside this package. Its merges were learned from nano's training text, so most
other text is split into single bytes.

The user's files are never written, replaced or deleted. tiktoken deletes a cache file with a wrong
hash, so it downloads only if there is no such file. `oss_lab.nano.training.vocabulary` trains a
vocabulary. The rules are those of tiktoken 0.14.0, `tiktoken_ext/openai_public.py`.
"""

import base64
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Literal

import tiktoken
from tiktoken.load import read_file_cached

from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.errors import VocabularyError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

O200K_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
O200K_RANKS = 199_998
O200K_FILE = "o200k_base.tiktoken"
CACHE_NAME = hashlib.sha1(O200K_URL.encode(), usedforsecurity=False).hexdigest()

PACKAGES = {
    "litellm": f"litellm/litellm_core_utils/tokenizers/{CACHE_NAME}",
    "llama-index-core": f"llama_index/core/_static/tiktoken_cache/{CACHE_NAME}",
}
"""Packages on PyPI that contain the identical file, and its path inside each."""

LONGEST_SPACE = 999_998
"""Characters of white space in a row that tiktoken 0.14.0 can encode; measured."""

VocabularyName = Literal["nano", "o200k_harmony"]
VOCABULARIES: dict[int, VocabularyName] = {
    GPT_OSS_NANO.vocab_size: "nano",
    GPT_OSS_20B.vocab_size: "o200k_harmony",
}
"""The vocabulary of a checkpoint with this vocab_size."""

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
# The pattern of Qwen2, also in llama.cpp under that name: each digit is a separate piece.
NANO_PATTERN = (
    CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

O200K_SPECIAL_IDS = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
}
HARMONY_SPECIALS = tuple(O200K_SPECIAL_IDS)
"""The nine names; nano's ids have the same order."""


def load_vocabulary(
    name: Literal["o200k_harmony", "nano"],
    *,
    path: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tiktoken.Encoding:
    """Return the named vocabulary; the same file contents give the same Encoding object.

    If `path` is given, o200k_harmony is read from there. Otherwise these places are searched in
    order: TIKTOKEN_CACHE_DIR; the tokenizer.json of the folder `checkpoint` or of its parent (for
    `original/`); the installed PACKAGES; tiktoken's cache and download. nano is read from this
    package unless `path` is given.

    Args:
        path: a `.tiktoken` file, a tokenizer.json (o200k_harmony only), or a folder with one of
            them. If it cannot be used, no other place is searched.
        checkpoint: a model folder; it is skipped if it has no usable tokenizer.json.

    Raises:
        VocabularyError: the vocabulary was not found or is not the published one; the message
            lists every place searched and what was wrong there.
    """
    if name == "nano":
        return _build_nano(_read_nano_file(path))
    if name != "o200k_harmony":
        raise VocabularyError(f"unknown vocabulary {name!r}: give o200k_harmony or nano")
    return _build_o200k(_find_o200k_base(path, checkpoint))


def build_nano_encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """Build nano's Encoding: `ranks`, then HARMONY_SPECIALS, then `<|reserved_N|>` up to 640."""
    size = GPT_OSS_NANO.vocab_size
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise VocabularyError(f"nano's vocabulary lacks {missing} of the 256 single bytes")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise VocabularyError("nano's ranks are not 0, 1, 2, ... without gaps")
    first_reserved = len(ranks) + len(HARMONY_SPECIALS)
    if first_reserved > size:
        raise VocabularyError(
            f"nano's {len(ranks)} ranks and {len(HARMONY_SPECIALS)} special tokens exceed {size}"
        )
    specials = {token: len(ranks) + n for n, token in enumerate(HARMONY_SPECIALS)}
    specials |= {f"<|reserved_{n}|>": n for n in range(first_reserved, size)}
    return tiktoken.Encoding(
        "nano",
        pat_str=NANO_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=specials,
        explicit_n_vocab=size,
    )


def parse_ranks(contents: bytes) -> dict[bytes, int]:
    """Read tiktoken's file format: one line "base64(token) rank" per token."""
    lines = (line.split() for line in contents.splitlines() if line)
    try:
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError:
        raise VocabularyError('a line is not "base64(token) rank"') from None


def dump_ranks(ranks: dict[bytes, int]) -> bytes:
    """Write `ranks` in tiktoken's file format, in the order of the ranks."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ordered)


@functools.cache
def _build_o200k(contents: bytes) -> tiktoken.Encoding:
    # o200k_base also names id 200018 <|endofprompt|>; decoding gives that name.
    named = set(O200K_SPECIAL_IDS.values())
    reserved = {f"<|reserved_{n}|>": n for n in range(200_000, 201_088) if n not in named}
    return tiktoken.Encoding(
        "o200k_harmony",
        pat_str=O200K_PATTERN,
        mergeable_ranks=parse_ranks(contents),
        special_tokens={"<|endofprompt|>": 200_018} | O200K_SPECIAL_IDS | reserved,
    )


@functools.cache
def _build_nano(contents: bytes) -> tiktoken.Encoding:
    return build_nano_encoding(parse_ranks(contents))


def _read_nano_file(path: str | os.PathLike[str] | None) -> bytes:
    asset = resources.files("oss_lab") / "assets" / "nano" / "nano.tiktoken"
    if path is not None:
        asset = Path(os.path.expanduser(path))
        asset = asset / "nano.tiktoken" if asset.is_dir() else asset
    try:
        return asset.read_bytes()
    except OSError as error:
        raise VocabularyError(f"nano's vocabulary {asset}: {_reason(error)}") from None


def _find_o200k_base(
    path: str | os.PathLike[str] | None, checkpoint: str | os.PathLike[str] | None
) -> bytes:
    if path is not None:
        places = _list_given_places(Path(os.path.expanduser(path)))
    else:
        folder = Path(os.path.expanduser(checkpoint)) if checkpoint is not None else None
        places = _list_known_places(folder)
    tried = []
    for place, found in places:
        if isinstance(found, bytes):
            return found
        if found not in NO_PLACE:
            tried.append(f"{place} ({found})")
    raise VocabularyError(
        f"the vocabulary o200k_harmony was not found; tried {', '.join(tried)}; "
        f"download {O200K_URL} (sha256 {O200K_SHA256}) as {O200K_FILE} "
        "into a folder and set TIKTOKEN_CACHE_DIR to that folder"
    )


NOT_SET, NO_CHECKPOINT, NOT_INSTALLED = "not set", "no checkpoint given", "not installed"
NO_PLACE = (NOT_SET, NO_CHECKPOINT, NOT_INSTALLED)
"""Reasons why there was no place to search; the message leaves these places out."""

Places = Iterator[tuple[str, bytes | str]]
"""Each place with the bytes of o200k_base.tiktoken, or with the reason why it has none."""


def _list_given_places(path: Path) -> Places:
    names = (CACHE_NAME, O200K_FILE, "tokenizer.json") if path.is_dir() else ("",)
    for file in (path / name for name in names):
        yield f"the given path {file}", _read_any(file)


def _list_known_places(checkpoint: Path | None) -> Places:
    if folder := os.environ.get("TIKTOKEN_CACHE_DIR"):
        for name in (CACHE_NAME, O200K_FILE):
            yield f"TIKTOKEN_CACHE_DIR, {Path(folder, name)}", _read_published(Path(folder, name))
    else:
        yield "TIKTOKEN_CACHE_DIR", NOT_SET
    if checkpoint is None:
        yield "a checkpoint's tokenizer.json", NO_CHECKPOINT
    else:
        for folder in (checkpoint, checkpoint.absolute().parent):
            file = folder / "tokenizer.json"
            yield f"the checkpoint's {file}", _read_tokenizer_json(file)
    for package, inside in PACKAGES.items():
        try:
            file = Path(str(metadata.distribution(package).locate_file(inside)))
        except metadata.PackageNotFoundError:
            yield f"the package {package}", NOT_INSTALLED
        else:
            yield f"the package {package}, {file}", _read_published(file)
    yield from _tiktoken_places()


def _tiktoken_places() -> Places:
    default = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    if folder:
        cached = Path(folder, CACHE_NAME)
        found = _read_published(cached)
        yield f"tiktoken's cache {cached}", found
        if cached.exists() or cached.is_symlink():
            yield "tiktoken's download", "not started: it would delete the file in its cache"
            return
    try:
        yield "tiktoken's download", read_file_cached(O200K_URL, O200K_SHA256)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        import requests

        is_offline = isinstance(error, requests.ConnectionError)  # its text is a long trace
        yield "tiktoken's download", "no connection" if is_offline else _reason(error)


def _read_any(file: Path) -> bytes | str:
    return _read_tokenizer_json(file) if file.suffix == ".json" else _read_published(file)


def _read_published(file: Path) -> bytes | str:
    try:
        contents = file.read_bytes()
    except OSError as error:
        return _reason(error)
    digest = hashlib.sha256(contents).hexdigest()
    if digest != O200K_SHA256:
        return f"not {O200K_FILE}: {len(contents):,} bytes with sha256 {digest[:12]}..."
    return contents


def _read_tokenizer_json(file: Path) -> bytes | str:
    """Rebuild o200k_base.tiktoken from a Hugging Face tokenizer.json, which has the same ranks.

    It writes each byte of a token as one of GPT-2's 256 printable characters.
    """
    try:
        vocabulary = json.loads(file.read_bytes())["model"]["vocab"]
        contents = dump_ranks(parse_byte_level(vocabulary, O200K_RANKS))
    except OSError as error:
        return _reason(error)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "not a byte-level tokenizer.json"
    if hashlib.sha256(contents).hexdigest() != O200K_SHA256:
        return f"a different vocabulary with {len(vocabulary):,} tokens"
    return contents


def parse_byte_level(vocabulary: dict[str, int], count: int) -> dict[bytes, int]:
    """The ranks below `count` of a Hugging Face vocabulary, whose tokens are in GPT-2's alphabet.

    Raises:
        KeyError: a token has another character, so the vocabulary is not byte-level.
    """
    return {
        bytes(_BYTE_OF[character] for character in token): rank
        for token, rank in vocabulary.items()
        if rank < count
    }


def _gpt2_alphabet() -> dict[str, int]:
    """Map characters to bytes: printable Latin-1 to itself, U+0100 and up to the other bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


_BYTE_OF = _gpt2_alphabet()
GPT2_CHARACTERS = {byte: character for character, byte in _BYTE_OF.items()}
"""The printable character that a tokenizer.json writes for each byte."""


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong, in the operating system's words if it has any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shorten(f"{type(error).__name__}: {error}", 160)


def encode_text(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """The ids of `text`; special tokens in it are ordinary text.

    Raises:
        VocabularyError: a run of white space is too long for tiktoken, which would end the process
            with a Rust panic.
    """
    if len(text) > LONGEST_SPACE:
        longest = max(map(len, re.findall(r"[^\S\r\n]+", text)), default=0)
        if longest > LONGEST_SPACE:
            raise VocabularyError(
                f"the text has {longest:,} white-space characters in a row, and the tokenizer"
                f" takes {LONGEST_SPACE:,}; shorten them"
            )
    return encoding.encode_ordinary(text)


def mask_usable_ids(encoding: tiktoken.Encoding, vocab_size: int) -> "Bool[Tensor, 'vocab']":
    """A mask of the ids that may be generated: all except reserved and unused ones."""
    import torch

    usable = torch.arange(vocab_size) < encoding.n_vocab
    for name in encoding.special_tokens_set:
        if name.startswith("<|reserved_"):
            usable[encoding.encode_single_token(name)] = False
    return usable
