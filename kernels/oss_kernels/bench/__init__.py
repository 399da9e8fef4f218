"""How fast the kernels are, beside what the machine's memory allows. Benchmarks, not tests."""
