"""What the CPU kernels share: vector instructions behind numba, rows of weights, threads.

README.md here has the order to read in. An operation's own CPU kernel is its folder's `cpu.py`.
"""
