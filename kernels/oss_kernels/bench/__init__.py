"""How fast the kernels are, compared with the machine's memory. Benchmarks, not tests."""
