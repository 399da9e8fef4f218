"""oss_kernels: the operations of a gpt-oss forward pass, one folder each, with torch references.

It contains no model and never imports `oss_lab`, which uses it. The references need torch, and
jaxtyping for the shapes in signatures. The Triton kernels also need triton, the CPU kernels numba.
kernels/README.md lists the order to read in.
"""
