"""A linear layer with MXFP4 weights. `reference` defines it; `kernel` is Triton, for a few tokens
(`decode`) and many (`prefill`). Import it only if Triton is installed."""
