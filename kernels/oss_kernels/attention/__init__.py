"""Attention with sinks. `reference` defines it; `kernel` and its parts are Triton (import them only
if Triton is installed)."""
