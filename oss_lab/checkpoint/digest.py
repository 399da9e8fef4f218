"""Identify a checkpoint: a SHA-256 over its configuration, weights and vocabulary.

A small weights file is hashed completely. For a large one, only its size, its header and blocks of
its data are hashed: 16 MiB per file, so 20b takes well under a second. A small change between the
blocks is not detected, for example in a single norm or a few rows. A fine-tune of the large
matrices is detected.
"""

import hashlib
from pathlib import Path

from oss_lab.checkpoint.read import Checkpoint

HASHED_WHOLE = 2**28  # bytes; larger files are hashed in part
BLOCKS, BLOCK = 256, 2**16  # of a larger file: number of blocks, bytes per block
VOCABULARY = "*.tiktoken"


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 of the configuration, the weights and the vocabulary."""
    digest = hashlib.sha256(repr(checkpoint.config).encode())
    weights = {located.file for located in checkpoint.located.values()}
    for file in sorted({*weights, *checkpoint.folder.glob(VOCABULARY)}):
        digest.update(f"\n{file.name} {file.stat().st_size} {file_digest(file)}".encode())
    return digest.hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file; above HASHED_WHOLE bytes, of its header and of evenly spaced blocks.

    The first block starts where the header ends, and the last ends with the file. A change outside
    the header and the blocks gives the same digest.
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
