"""An excerpt of o200k's byte-pair ranks: enough to encode the course's examples offline.

OpenAI's file has 199,998 ranks and 3.6 MB; this package does not contain it. The excerpt has the
single bytes, every number of up to three digits, and every token inside a piece of EXAMPLES. So
these texts get their true ids, and most other text does not. The sentences are from article 1 of
the Universal Declaration of Human Rights, in the translations of the United Nations. Run

    python -m oss_lab.course.o200k_excerpt

to rewrite the excerpt from the published file (see `oss_lab.tokenizer`).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import regex

from oss_lab.tokenizer import (
    O200K_PATTERN,
    O200K_RANKS,
    dump_ranks,
    load_vocabulary,
    parse_ranks,
)

ASSET = Path(__file__).parents[1] / "assets" / "course" / "o200k_excerpt.tiktoken"
QUESTION = "What is 347 * 62?"
SENTENCES = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。",
    "Arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "Hindi": ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
    "Amharic": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
}
EXAMPLES = (QUESTION, "assistant", *SENTENCES.values())


@cache
def read_excerpt() -> Mapping[bytes, int]:
    """The bytes and the rank of each token of the excerpt."""
    asset = resources.files("oss_lab") / "assets" / "course" / ASSET.name
    return parse_ranks(asset.read_bytes())


def build_excerpt(ranks: Mapping[bytes, int], texts: Iterable[str]) -> dict[bytes, int]:
    """The ranks of bytes and of short numbers, and every token inside a piece of the texts."""
    numbers = [f"{n:0{digits}}" for digits in (1, 2, 3) for n in range(10**digits)]
    pieces = [piece for text in texts for piece in regex.findall(O200K_PATTERN, text)]
    found = {bytes([byte]) for byte in range(256)}
    for piece in map(str.encode, (*numbers, *pieces)):
        ends = range(1, len(piece) + 1)
        found |= {piece[start:end] for end in ends for start in range(end)}
    return {token: ranks[token] for token in sorted(found & ranks.keys())}


def list_published_ranks() -> dict[bytes, int]:
    """All ranks of o200k_harmony. Raises VocabularyError if the file is not on this machine."""
    published = load_vocabulary("o200k_harmony")
    return {published.decode_single_token_bytes(rank): rank for rank in range(O200K_RANKS)}


def main() -> None:
    ranks = build_excerpt(list_published_ranks(), EXAMPLES)
    ASSET.write_bytes(dump_ranks(ranks))
    print(f"{ASSET.name}: {len(ranks):,} ranks, {ASSET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
