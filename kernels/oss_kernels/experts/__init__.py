"""A token's chosen experts. `reference` defines the operation; `decode` and `prefill` are Triton,
and `kernel` chooses between them (import these only if Triton is installed)."""
