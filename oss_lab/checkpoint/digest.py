"""What tells one checkpoint from another: a SHA-256 over its configuration, weights and vocabulary.

A small weights file is hashed whole. Of a large one the size, the header and blocks of the data
are: 16 MiB a file, so that 20b takes well under a second. A change of weights that lies wholly
between the blocks goes unseen, such as one of a single norm or a few rows; a fine-tune of the large
matrices is seen.
"""

import hashlib
from pathlib import Path

from oss_lab.checkpoint.read import Checkpoint

HASHED_WHOLE = 2**28  # bytes of a file
BLOCKS, BLOCK = 256, 2**16  # of a larger one: how many, and the bytes of each
VOCABULARY = "*.tiktoken"


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of the configuration, the weights and the vocabulary."""
    digest = hashlib.sha256(repr(checkpoint.config).encode())
    weights = {located.file for located in checkpoint.located.values()}
    for file in sorted({*weights, *checkpoint.folder.glob(VOCABULARY)}):
        digest.update(f"\n{file.name} {file.stat().st_size} {file_digest(file)}".encode())
    return digest.hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file; beyond HASHED_WHOLE of its header and of blocks evenly spaced behind it.

    The first block begins where the header ends and the last ends with the file. A change that
    touches none of them gives the same digest.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= HASHED_WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        length = int.from_bytes(stream.read(8), "little")
        digest = hashlib.sha256(stream.read(length))
        first, room = 8 + length, max(0, size - 8 - length - BLOCK)
        for n in range(BLOCKS):
            stream.seek(first + n * room // (BLOCKS - 1))
            digest.update(stream.read(BLOCK))
    return digest.hexdigest()
