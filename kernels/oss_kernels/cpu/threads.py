"""Run kernels on as many threads as torch uses.

On Linux torch loads its OpenMP library first and for the whole process. numba's OpenMP threads are
then torch's threads: one pool, with no more threads than cores. Starting numba's pool changes the
thread count of that library, and so torch's count, which is restored here.
"""

import numba
import torch
from numba.core import config


def follow_torch() -> None:
    """Make numba use torch's number of threads. Call this before a kernel."""
    wanted = torch.get_num_threads()
    numba.set_num_threads(min(wanted, config.NUMBA_NUM_THREADS))  # pyright: ignore[reportAttributeAccessIssue]
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
