"""How many threads a kernel runs on: as many as torch.

Under Linux torch's OpenMP library is loaded first and for everyone, so that numba's OpenMP threads
are torch's own: one pool, no more threads than cores. Starting numba's pool sets that library's
number of threads, which is torch's too; it is set back here.
"""

import numba
import torch
from numba.core import config


def follow_torch() -> None:
    """Call before a kernel."""
    wanted = torch.get_num_threads()
    numba.set_num_threads(min(wanted, config.NUMBA_NUM_THREADS))  # pyright: ignore[reportAttributeAccessIssue]
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
