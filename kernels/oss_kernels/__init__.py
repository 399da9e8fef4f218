"""oss_kernels: the operations under gpt-oss, one a folder, each with its reference in plain torch.

It knows no model: `oss_lab` imports it, never the other way round. Importing it needs torch only;
Triton's kernels need triton, the CPU's need numba. kernels/README.md has the order to read in.
"""
