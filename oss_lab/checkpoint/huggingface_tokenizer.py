"""Write a vocabulary as the tokenizer files that transformers reads, with a chat template.

tiktoken merges the adjacent pair whose result has the lowest rank. Hugging Face's format lists the
pairs instead, by priority. So every split of a token into two tokens becomes a merge, in the order
of the token's rank. A piece that is a token is taken whole, as in tiktoken.

The pieces come from the same regular expression. The chat template is our own, in the package
`harmony`. Left out: a beginning-of-text token in front of the text, which Harmony does not use.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import tiktoken

from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT, TOKENIZER
from oss_lab.harmony.specials import find_special_tokens, stop_tokens
from oss_lab.tokenizer import GPT2_CHARACTERS

TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"
FILES = (
    TEMPLATE,
    GENERATION,
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
)
START, PAD, RETURN = "<|startoftext|>", "<|endoftext|>", "<|return|>"


def write_tokenizer(folder: Path, encoding: tiktoken.Encoding, context: int) -> list[Path]:
    """Write tokenizer.json, its configuration, the chat template and the generation defaults.

    Args:
        context: the model's longest context in tokens.
    """
    ids = find_special_tokens(encoding).ids
    named = {"bos_token": START, "eos_token": RETURN, "pad_token": PAD}
    stops = sorted({*stop_tokens(encoding, for_sampling=True), ids[PAD]})
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **named,
    }
    generation = {
        "bos_token_id": ids[START],
        "eos_token_id": stops,
        "pad_token_id": ids[PAD],
    }
    contents = {
        TOKENIZER: _dump(build_tokenizer_fields(encoding)),
        "tokenizer_config.json": _dump(config),
        "special_tokens_map.json": _dump(named),
        GENERATION: _dump(generation),
        TEMPLATE: build_chat_template(encoding),
    }
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in contents]


def build_chat_template(encoding: tiktoken.Encoding) -> str:
    """Our chat template, with the default effort of the vocabulary's model."""
    template = resources.files("oss_lab.harmony").joinpath(TEMPLATE).read_text("utf-8")
    effort = DEFAULT_EFFORT.get(encoding.name, "medium")
    return template.replace("default_effort = 'medium'", f"default_effort = '{effort}'")


def build_tokenizer_fields(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """The contents of tokenizer.json.

    The text of every special token is recognized, as with tiktoken's `allowed_special="all"`;
    transformers' `split_special_tokens=True` is tiktoken's `encode_ordinary`.
    """
    ranks = {token: encoding.encode_single_token(token) for token in encoding.token_byte_values()}
    ids = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    # One name per id: tiktoken's o200k_harmony also calls 200018 <|reserved_200018|>.
    specials = {encoding.decode([id]): id for id in sorted(ids)}
    pattern = {"type": "Split", "pattern": {"Regex": encoding._pat_str}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level |= {"use_regex": False}
    vocabulary = {to_text(token): rank for token, rank in ranks.items()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(name, id) for name, id in specials.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [pattern | {"invert": False}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary | specials,
            "merges": [f"{to_text(a)} {to_text(b)}" for a, b in derive_merges(ranks)],
        },
    }


def derive_merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield every split of a token into two tokens, in the order in which BPE applies them.

    >>> list(derive_merges({b"a": 0, b"b": 1, b"ab": 2, b"aba": 3}))
    [(b'a', b'b'), (b'ab', b'a')]
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = [(a, b) for a, b in halves if a in ranks and b in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def to_text(token: bytes) -> str:
    """A token's bytes as printable characters, as GPT-2 writes them."""
    return token.decode("latin-1").translate(GPT2_CHARACTERS)


def _added_token(name: str, id: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": name, **flags, "special": True}


def _dump(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
