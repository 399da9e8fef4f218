"""A linear layer with MXFP4 weights. `reference` defines it; `kernel` is Triton, for few tokens
(`decode`) and many (`prefill`). Import it only where Triton is."""
