"""What the CPU kernels share: vector instructions behind numba, rows of weights, threads.

Read `machine`, `numbers`, `vectors`, `arrange`, then for MXFP4 `e2m1_layouts`, `e8m0_scales`,
`e2m1_rows`, `e2m1_tile` and `dequantise`, for bfloat16 `bf16_rows`.
An operation's own CPU kernel is its folder's `cpu.py`.
"""
