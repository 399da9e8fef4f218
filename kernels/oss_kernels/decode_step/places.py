"""Where a phase stores its results, so the next phase can multiply them without rearranging.

The matrix products want activations in their own order (see `oss_kernels.cpu.arrange`). A row's
last chunk may overlap the chunk before it, and its activations are zero there. These zeros never
change, so they are written once. After that, element i is only ever stored at `places[i]`.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from oss_kernels.cpu.arrange import arrange_token, empty_arranged


def find_places(columns: int, order: tuple[int, ...]) -> Int[Tensor, "columns"]:
    """The place of each of a row's elements in its arranged form."""
    numbers = np.arange(1, columns + 1, dtype=np.float32)  # exact below 2^24
    arranged = empty_arranged(1, columns, len(order), 32)[0]
    arrange_token(numbers, np.array(order), arranged)
    at = np.flatnonzero(arranged)
    places = np.empty(columns, np.int64)
    places[arranged.ravel()[at].astype(np.int64) - 1] = at
    return torch.from_numpy(places)


def empty_row(columns: int, elements: int, dtype: torch.dtype) -> Tensor:
    """Memory for a row arranged in chunks of `elements`, all zero; it starts at a cache line."""
    return torch.zeros(-(-columns // elements) * elements, dtype=dtype)
