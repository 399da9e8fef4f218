"""A decode step up to attention: norm, q/k/v projection, RoPE, append to the KV cache."""
