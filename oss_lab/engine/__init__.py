"""Runs a model: batches of requests, their KV cache and sampler, on one of two engines.

request.py        one sequence to continue or to read
row.py            a request while it is in a batch
batch.py          requests that join and leave between steps, each computed as if it ran alone
read.py           forward passes over a batch: prefill, and logits
cache.py          the KV cache: keys and values of earlier tokens (`layer_cache.py`: of one layer)
merging.py        caches of different lengths, merged into one
constraint.py     the interface of a constraint on the tokens of a row
sampling.py       sampling settings, and the random numbers
next_token.py     masks, samples and scores the next token of every row
sampler.py        samples an id from logits (`buckets.py`: without sorting a large vocabulary)
engine.py         the interface of every engine
reference.py      the engine that runs the reference model, `oss_lab/model`
kernels.py        the engine that computes the same forward pass with fused kernels
decode_plan.py    a decode step on a CPU as one compiled call
device_decode.py  a decode step on a GPU (`device_plan.py`: its launches; `device_cache.py`: keys)
weight_places.py  where both find the weights (`step_points.py`: what both can record)
choice.py         chooses the engine for a request
parallel/         one model in the memory of several processes
"""
