"""Fewer shapes of bfloat16 products, so that torch keeps fewer compiled kernels.

For bfloat16 torch multiplies with oneDNN, which compiles a kernel for every new shape: 6 ms and
1 MB each, for up to 1,024 shapes. The experts of a batch have a different number of tokens each.
Rounded up to whole tiles of the matrix unit, few numbers are left.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SIDE = 16  # rows of a tile


def even_rows(x: Float[Tensor, "token columns"]) -> Float[Tensor, "token+added columns"]:
    """x with rows of zeros, up to a multiple of SIDE. The caller drops their products."""
    added = -len(x) % SIDE
    return F.pad(x, (0, 0, 0, added)) if added else x
