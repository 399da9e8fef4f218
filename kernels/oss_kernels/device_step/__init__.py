"""A whole decode step as a fixed list of Triton launches, which a CUDA graph can replay."""
