"""Compiles every kernel for GPUs that are not there, and reads whether the code is any good.

Triton's wheel brings the compilers and disassemblers of NVIDIA; AMD's back end writes assembly that
says of itself what it uses. Neither a device nor a driver is needed. `python -m oss_kernels.gate`.
"""
