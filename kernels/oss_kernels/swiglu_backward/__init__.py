"""The gradient of the experts' activation. `reference` defines it; `kernel` is Triton (import it
only if Triton is installed)."""
