"""nano's vocabulary: byte-pair encoding trained on the text of nano's training conversations.

Training starts from the 256 bytes. It repeatedly merges the most frequent pair of neighbors within
the pieces that the pre-tokenizer produces (Sennrich et al., arXiv 1508.07909). Each digit is a
separate piece, so a number always has one token per digit. Run
`python -m oss_lab.nano.training.vocabulary` to rewrite the shipped file; the same corpus seed gives
the same bytes.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import regex

from oss_lab.config import GPT_OSS_NANO
from oss_lab.harmony.messages import EFFORTS
from oss_lab.harmony.render import render
from oss_lab.nano.tasks.mix import draw_broad
from oss_lab.tokenizer import HARMONY_SPECIALS, NANO_PATTERN, build_nano_encoding, dump_ranks

ASSET = Path(__file__).parents[2] / "assets" / "nano" / "nano.tiktoken"
MERGES = GPT_OSS_NANO.vocab_size - 256 - len(HARMONY_SPECIALS) - 7  # seven ids stay reserved
CORPUS_PROBLEMS = 6000


def train_ranks(pieces: Counter[str], merges: int) -> dict[bytes, int]:
    """The 256 bytes, then `merges` merged pairs in the order they were learned; ties by bytes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    words = {tuple(bytes([b]) for b in piece.encode()): n for piece, n in pieces.items()}
    for _ in range(merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks[best[0] + best[1]] = len(ranks)
        words = {_join(word, best): count for word, count in words.items()}
    return ranks


def _join(word: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    joined: list[bytes] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def count_corpus_pieces(seed: int, problems: int) -> Counter[str]:
    """Count the pre-tokenized pieces of rendered training conversations."""
    rng, pieces = Random(seed), Counter[str]()
    spelling = build_nano_encoding({bytes([byte]): byte for byte in range(256)})
    for _ in range(problems):
        setting, task = draw_broad(rng)
        problem = setting.apply(rng, task.draw(rng, "train"))
        conversation = problem.conversation(rng.choice(EFFORTS))
        for source in render(conversation, spelling, mode="training").sources.values():
            text = regex.sub(r"<\|\w+\|>", "", source)  # special tokens are structure, not text
            pieces.update(regex.findall(NANO_PATTERN, text))
    return pieces


def main() -> None:
    ranks = train_ranks(count_corpus_pieces(seed=0, problems=CORPUS_PROBLEMS), MERGES)
    ASSET.write_bytes(dump_ranks(ranks))
    print(f"{ASSET.name}: {len(ranks)} ranks, {ASSET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
