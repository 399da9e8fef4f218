"""x weight^T + bias on the CPU: bfloat16 weights row by row for a few tokens, otherwise torch.

For one token nearly all the time goes into reading the weights, each once. torch already reads
float32 weights at the speed of memory, and its matrix product is the fastest for many tokens.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

from oss_kernels.cpu.arrange import arrange, empty_arranged
from oss_kernels.cpu.bf16_rows import CHUNK, ORDER, bfloat16_product
from oss_kernels.cpu.numbers import as_numpy, load_float32, store_rounded
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.linear.checks import check_linear

FEW = 4  # tokens: with more, torch is as fast; measured by `oss_kernels.bench --cpu`


@cache
def rows_kernel():
    """The compiled kernel: out [token rows] = x weight^T + bias; all bfloat16, stored as uint16."""
    order, sources = np.array(ORDER), fingerprint()

    @njit(parallel=True, nogil=True, cache=True)
    def kernel(x, weight, bias, arranged, out):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        tokens, columns = x.shape
        addresses = arrange(x, order, arranged)
        weights = weight.ctypes.data
        # A row comes from memory for the first token and from the L1 cache for the others.
        for row in prange(weight.shape[0]):
            for token in range(tokens):
                value = bfloat16_product(addresses[token], weights + row * columns * 2, columns)
                if bias is not None:
                    value += load_float32(bias, row)
                store_rounded(out, (token, row), value)

    return kernel


def linear(
    x: Float[Tensor, "token columns"],
    weight: Float[Tensor, "rows columns"],
    bias: Float[Tensor, "rows"] | None,
    residual: Float[Tensor, "token rows"] | None = None,
) -> Float[Tensor, "token rows"]:
    """The operation of `reference.linear`, without gradients."""
    check_linear(x, weight, bias, residual)
    tokens, columns = x.shape
    few = 0 < tokens <= FEW and columns >= CHUNK and len(weight) > 0
    if few and x.dtype == weight.dtype == torch.bfloat16:
        out = torch.empty(tokens, len(weight), dtype=x.dtype)
        follow_torch()
        rows_kernel()(
            as_numpy(x),
            as_numpy(weight),
            None if bias is None else as_numpy(bias),
            empty_arranged(tokens, columns, CHUNK, 32),
            as_numpy(out),
        )
    else:
        out = F.linear(x, weight, bias)
    return out if residual is None else residual + out
