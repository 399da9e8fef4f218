"""Shared parts of the CPU kernels: vector instructions for numba, rows of weights, threads.

README.md here lists the order to read in. The CPU kernel of an operation is `cpu.py` in its folder.
"""
