"""Some rows of MXFP4 weights times any number of tokens.

The rows stay in the first cache while the tokens pass, four at a time, so that weights are decoded
once for four.
"""

from functools import cache

from numba import njit

from oss_kernels.cpu.e2m1_rows import GROUP_BYTES, row_products
from oss_kernels.cpu.machine import Path

ROWS = 8


@cache
def tile_product(path: Path):
    """The compiled function of a path, for kernels to call."""

    @njit(nogil=True)
    def product(places, blocks, scales, groups, rows, out):
        """out [token, row] = the products of `rows` rows from the addresses blocks and scales on.

        `places` has the address of each token's activations, as `arrange` wrote them.
        """
        for n in range(0, places.size - 3, 4):
            four = (places[n], places[n + 1], places[n + 2], places[n + 3])
            for row in range(rows):
                own, shared = blocks + row * groups * GROUP_BYTES, scales + row * groups
                a, b, c, d = row_products(path, four, own, shared, groups)
                out[n, row], out[n + 1, row], out[n + 2, row], out[n + 3, row] = a, b, c, d
        for n in range(places.size // 4 * 4, places.size):
            for row in range(rows):
                own, shared = blocks + row * groups * GROUP_BYTES, scales + row * groups
                (out[n, row],) = row_products(path, (places[n],), own, shared, groups)

    return product
