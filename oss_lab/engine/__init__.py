"""Runs a model: batches of requests, their KV cache and sampler, on one of two engines.

request.py     one sequence to continue or to read
row.py         a request while it is in a batch
batch.py       requests that join and leave between steps, each computed as if it ran alone
read.py        forward passes over a batch: prefill, and logits
cache.py       the KV cache: keys and values of the tokens read so far (`layer_cache.py`: a layer's)
merging.py     caches of different lengths, merged into one
constraint.py  the interface of a constraint on the tokens of a row
sampling.py    sampling settings, and the random numbers
next_token.py  masks, samples and scores the next token of every row
sampler.py     samples an id from logits (`buckets.py`: without sorting a large vocabulary)
engine.py      the interface of every engine
reference.py   the engine that runs the reference model, `oss_lab/model`
kernels.py     the engine that computes the same forward pass with fused kernels
device_plan.py a decode step on a GPU as a fixed list of launches
decode_plan.py the decode step of a CPU as one compiled call (`device_plan.py`: of a GPU)
choice.py      chooses the engine for a request
parallel/      one model in the memory of several processes
"""
