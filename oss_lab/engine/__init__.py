"""What runs a model: its cache, its sampler and loop, and the same forward computed by kernels.

cache.py          keys and values of the tokens read so far
generate.py       sampling, prefill, and token after token for a batch
kernel_model.py   the model of `oss_lab.model` with its operations computed by kernels
loading.py        from a checkpoint to a model on a device
"""
