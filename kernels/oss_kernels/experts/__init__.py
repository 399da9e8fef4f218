"""A token's chosen experts. `reference` defines them; `decode` and `prefill` are Triton, between
which `kernel` chooses (import them only where Triton is)."""
