"""A linear layer for a few tokens. `reference` defines it; `kernel` is Triton."""
