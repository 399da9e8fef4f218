"""oss_kernels: the operations under gpt-oss, one a folder, each with its reference in plain torch.

It knows no model: `oss_lab` imports it, never the other way round. Its references need torch, and
jaxtyping for the shapes in signatures; Triton's kernels need triton too, the CPU's numba.
kernels/README.md has the order to read in.
"""
