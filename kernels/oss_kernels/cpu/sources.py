"""What compiled kernels were compiled from.

numba keeps compiled code on disk, and compiles again when the file changed that defines the kernel;
it does not see changes in files that this one imports. So each kernel mentions this fingerprint:
it is part of what numba looks compiled code up by.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def fingerprint() -> str:
    """Of every file in this folder."""
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
