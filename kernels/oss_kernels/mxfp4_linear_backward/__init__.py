"""The gradient of an MXFP4 linear layer's input. `reference` defines it; `kernel` is Triton (import
it only if Triton is installed)."""
