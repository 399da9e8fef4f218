"""How fast this machine reads memory: the limit of decoding, which reads all weights per token."""

import statistics

import torch

from oss_lab.bench.sides import time_inference

SIZE, ARRAYS, ROUNDS = 16_000_000, 16, 5  # together several times the L3 cache of a desktop


def measure_reading() -> float:
    """Gigabytes per second of torch's sum over arrays of 16 MB, the size of a large matrix.

    The median over rounds, each of which reads all arrays.
    """
    arrays = [torch.ones(SIZE // 8, dtype=torch.int64) for _ in range(ARRAYS)]
    seconds = [time_inference(lambda: [each.sum() for each in arrays]) for _ in range(ROUNDS + 1)]
    return SIZE * ARRAYS / statistics.median(seconds[1:]) / 1e9
