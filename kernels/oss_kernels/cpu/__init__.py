"""What the CPU kernels share: vector instructions behind numba, rows of packed weights, threads.

Read `machine`, `vectors`, `e2m1_rows`. An operation's own CPU kernel is its folder's `cpu.py`.
"""
