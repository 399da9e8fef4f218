"""What a decode step does before attention: norm, q, k and v, rotation, append to the cache."""
