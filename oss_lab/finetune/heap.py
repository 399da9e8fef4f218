"""Give freed memory back: a setting of glibc's allocator, for large models on a CPU.

glibc keeps freed blocks of up to 32 MiB in its heap. Expert matrices are a little smaller, and in
the gaps between longer-lived blocks they need twice the memory that is in use. Blocks above
LARGE are then mapped from the operating system instead, and given back when freed. This applies to
the whole process, and changes no result.
"""

import ctypes
import sys

LARGE = 2**20  # bytes
M_MMAP_THRESHOLD = -3  # malloc.h


def return_large_blocks() -> None:
    """Make glibc return freed blocks above LARGE; other systems are left as they are."""
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:  # musl has none
            set_option(M_MMAP_THRESHOLD, LARGE)
