"""A fingerprint of this folder's source, which keeps numba's cache from returning outdated code.

numba caches compiled kernels on disk and recompiles when the file that defines a kernel changes. It
does not notice changes in imported files. So each kernel uses this fingerprint, which makes it part
of numba's cache key.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def fingerprint() -> str:
    """The SHA-256 of every Python file in this folder."""
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
