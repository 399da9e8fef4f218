"""A position in the language of one grammar, over one vocabulary: llguidance, with our errors.

llguidance builds a trie of the vocabulary once, and compiles a grammar once. A `Matcher` then walks
both: it lists the tokens that keep the text a prefix of the language, and takes one token after the
other. Where the grammar forces the next bytes, it allows only their usual tokens.
"""

import functools
import json

import numpy as np
import tiktoken
from jaxtyping import Bool
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from oss_lab.errors import LabError, shorten
from oss_lab.harmony.specials import ENDOFTEXT, find_special_tokens

LONGEST_GRAMMAR = 200_000  # characters
LEXER_FUEL = 500_000  # half of llguidance's: a{1000} inside {1000} then takes a second, not ten
IMPOSSIBLE = "no text fits it"
_KNOWN = {"NoExtensionBias": IMPOSSIBLE, "Unsatisfiable schema": IMPOSSIBLE}


@functools.lru_cache(maxsize=4)
def build_trie(encoding: tiktoken.Encoding) -> LLTokenizer:
    """The vocabulary as llguidance reads it; seconds for 200,000 tokens, so it is kept."""
    specials = find_special_tokens(encoding)
    return LLTokenizer.from_tiktoken(  # pyright: ignore[reportAttributeAccessIssue]
        encoder=encoding._mergeable_ranks,
        special_tokens={name: id for id, name in specials.names.items()},
        pattern=encoding._pat_str,
        eos_token=specials.ids[ENDOFTEXT],
        n_vocab=encoding.n_vocab,
        slices=LLTokenizer.json_slices(),
    )


@functools.lru_cache(maxsize=64)
def compile_grammar(encoding: tiktoken.Encoding, grammar: str, what: str) -> "Matcher":
    """A matcher at the start of a grammar; copy it before you use it.

    Args:
        grammar: in llguidance's form, as its `grammar_from_...` functions return it.
        what: names the grammar in an error, such as "the schema".

    Raises:
        LabError: the grammar cannot be used, is too large, or no text fits it.
    """
    if len(grammar) > LONGEST_GRAMMAR:
        raise LabError(
            f"{what} has {len(grammar):,} characters as a grammar; the limit is {LONGEST_GRAMMAR:,}"
        )
    limits = LLParserLimits(verbose_errors=False, initial_lexer_fuel=LEXER_FUEL)
    made = LLMatcher(build_trie(encoding), grammar, log_level=0, limits=limits)
    matcher = Matcher(made, encoding, what)
    matcher.allowed()  # finds an empty language
    return matcher


class Matcher:
    """A position in a language."""

    def __init__(self, made: LLMatcher, encoding: tiktoken.Encoding, what: str) -> None:
        self._made, self._encoding, self.what = made, encoding, what
        self._raise_error()

    def copy(self) -> "Matcher":
        """An independent matcher at the same position."""
        return Matcher(self._made.deep_copy(), self._encoding, self.what)

    def allowed(self) -> Bool[np.ndarray, "vocab"]:
        """True for each token that may come next. `<|endoftext|>` means that the text may end."""
        bits = np.frombuffer(self._made.compute_bitmask(), np.uint8)
        self._raise_error()
        return np.unpackbits(bits, bitorder="little").view(bool)[: self._encoding.n_vocab]

    def accept(self, id: int) -> None:
        """Move past this token.

        Raises:
            LabError: it is not allowed here.
        """
        if not self._made.validate_tokens([id]):
            raise LabError(f"{self.what} does not allow {show_token(self._encoding, id)} here")
        self._made.consume_token(id)
        self._raise_error()

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        return self._made.is_stopped()

    @property
    def can_end(self) -> bool:
        """Whether the text so far is complete, although more may follow."""
        return self._made.is_accepting()

    def _raise_error(self) -> None:
        if self._made.is_error():
            raise LabError(f"{self.what} cannot be used: {explain(self._made.get_error())}")


def explain(error: str) -> str:
    """llguidance's explanation as part of a sentence, without its drawing of the place."""
    lines = [line.strip() for line in error.splitlines()]
    reason = next((line for line in lines if line.startswith("error: ")), lines[0] if lines else "")
    for known, meaning in _KNOWN.items():
        if reason.startswith(known):
            details = reason.removeprefix(known).removeprefix(": ")
            return f"{meaning} ({details})" if details else meaning
    return shorten(reason.removeprefix("error: ").rstrip("."), 200)


def show_token(encoding: tiktoken.Encoding, id: int) -> str:
    """A token for an error message."""
    try:
        return json.dumps(encoding.decode_single_token_bytes(id).decode(errors="replace"))
    except (KeyError, OverflowError):
        return f"id {id}"
