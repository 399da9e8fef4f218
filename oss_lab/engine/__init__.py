"""What runs a model: requests in batches, their cache and sampler, on one of two engines.

request.py     one sequence to continue or to read, as plain data
row.py         a request that an engine works on
batch.py       requests that join and leave between steps, each as if it ran alone
read.py        forwards of a batch's tokens, and logits
cache.py       keys and values of the tokens read so far
sampling.py    how tokens are to be sampled, and the random numbers
sampler.py     the next token from logits (`buckets.py`: without sorting a large vocabulary)
engine.py      what every engine has
reference.py   the readable model
kernels.py     the same forward as fused operations
choice.py      which engine computes a request
"""
