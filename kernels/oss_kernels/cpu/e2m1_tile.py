"""A few rows of MXFP4 weights times any number of tokens.

The rows stay in the L1 cache while all tokens are processed, four at a time. So each weight is
decoded once for every four tokens.
"""

from numba.extending import overload

from oss_kernels.cpu.e2m1_rows import GROUP_BYTES, row_products

ROWS = 8


def tile_product(path, addresses, blocks_at, scales_at, groups, first, rows, out):
    """out [token, row] = the products of `rows` rows, starting at row `first`.

    `path` is a compile-time constant. blocks_at and scales_at are the addresses of row 0.
    `addresses` are those of each token's activations, written by `arrange`.
    """
    raise NotImplementedError("only code compiled by numba can call this")


@overload(tile_product, prefer_literal=True)
def _tile_product(path, addresses, blocks_at, scales_at, groups, first, rows, out):
    its_path = path.literal_value

    def product(path, addresses, blocks_at, scales_at, groups, first, rows, out):
        for n in range(0, addresses.size - 3, 4):
            four = (addresses[n], addresses[n + 1], addresses[n + 2], addresses[n + 3])
            for i in range(rows):
                blocks = blocks_at + (first + i) * groups * GROUP_BYTES
                scales = scales_at + (first + i) * groups
                a, b, c, d = row_products(its_path, four, blocks, scales, groups)
                out[n, i], out[n + 1, i], out[n + 2, i], out[n + 3, i] = a, b, c, d
        for n in range(addresses.size // 4 * 4, addresses.size):
            for i in range(rows):
                blocks = blocks_at + (first + i) * groups * GROUP_BYTES
                scales = scales_at + (first + i) * groups
                (out[n, i],) = row_products(its_path, (addresses[n],), blocks, scales, groups)

    return product
