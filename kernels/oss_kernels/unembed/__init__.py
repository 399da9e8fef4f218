"""From the residual stream to the next token: norm, logits, sampling. `reference` defines it."""
