"""Compiles every kernel for eight GPUs and checks the compiled code, without a GPU or a driver.

Triton's wheel contains NVIDIA's compiler and disassembler. AMD's back end writes assembly that
lists the resources it uses. Run `python -m oss_kernels.gate`.
"""
