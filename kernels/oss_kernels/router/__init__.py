"""The router. `reference` defines it; `kernel` is Triton (import it only where Triton is)."""
