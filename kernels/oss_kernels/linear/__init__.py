"""A linear layer for few tokens. `reference` defines it; `kernel` is Triton."""
