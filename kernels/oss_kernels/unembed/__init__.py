"""From the residual stream to the next token: norm, logits, a draw. `reference` defines it."""
