"""Gradients of attention. `reference` defines them; `kernel` and its parts are Triton (import them
only if Triton is installed)."""
