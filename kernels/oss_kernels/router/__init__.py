"""The router. `reference` defines it; `kernel` is Triton (import only if Triton is installed)."""
