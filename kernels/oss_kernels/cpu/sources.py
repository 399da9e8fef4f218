"""A fingerprint of the source, which keeps numba's cache from returning outdated code.

numba caches compiled kernels on disk and recompiles when the file that defines a kernel changes. It
does not notice changes in imported files. So each kernel uses this fingerprint, which makes it part
of numba's cache key.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def fingerprint(*others: str) -> str:
    """The SHA-256 of every Python file in this folder, and in `others` beside it."""
    digest, here = sha256(), Path(__file__).parent
    for folder in (here, *(here.parent / name for name in others)):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
