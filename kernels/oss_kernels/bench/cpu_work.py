"""What the CPU's bench times: the kernels at gpt-oss's sizes, torch's beside them, and reading.

Copies of the weights are cycled so that each call finds its own in memory and not in the
third-level cache.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from oss_kernels.cases import Make, counted
from oss_kernels.cpu import machine
from oss_kernels.experts.cpu import expert_mlp
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.linear.cpu import linear
from oss_kernels.mxfp4_linear.cpu import by_rows, mxfp4_linear
from oss_kernels.shapes import GPT_OSS_20B

MEMORY = 200e6  # bytes that copies take at least: several third-level caches of a desktop
SIZE = GPT_OSS_20B


@dataclass(frozen=True)
class Timed:
    """One thing to time.

    Attributes:
        bytes: of weights, each read once a call; of experts, on average.
        flops: a call.
        calls: one a copy, to be made in turn.
    """

    name: str
    bytes: int
    flops: int
    calls: Sequence[Callable[[], object]]


def copies(size: int) -> range:
    return range(max(2, -(-int(MEMORY) // size)))


def reading() -> Timed:
    """A torch sum over as many bytes as a large matrix has."""
    size = 16_000_000
    arrays = [torch.ones(size // 8, dtype=torch.int64) for _ in copies(size)]
    return Timed("reading memory", size, 0, [lambda a=a: a.sum() for a in arrays])


def mxfp4(
    make: Make, rows: int, columns: int, tokens: int, path: machine.InstructionSet | None = None
) -> Timed:
    """As callers get it or, with a path, by rows in that one."""
    size = rows * columns // 32 * 17
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.mxfp4(rows, columns=columns) for _ in copies(size)]
    product = partial(by_rows, path=path) if path else mxfp4_linear
    calls = [lambda w=w: product(x, w[0], w[1], bias) for w in weights]
    name = f"MXFP4 {columns} to {rows}, {counted(tokens)}{f', {path} path' if path else ''}"
    return Timed(name, size, 2 * tokens * rows * columns, calls)


def bfloat16(make: Make, rows: int, columns: int, tokens: int) -> list[Timed]:
    """Ours and torch's on the same weights."""
    size = 2 * rows * columns
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.normal(rows, columns) for _ in copies(size)]
    return [
        Timed(
            f"bfloat16 {columns} to {rows}, {counted(tokens)}{by}",
            size,
            2 * tokens * rows * columns,
            [lambda w=w, function=function: function(x, w, bias) for w in weights],
        )
        for by, function in (("", linear), (", torch", F.linear))
    ]


def experts(make: Make, tokens: int) -> Timed:
    """One layer of 20b, its 32 experts; tokens choose at random, another choice each call."""
    layer = ExpertWeights(
        *make.mxfp4(SIZE.experts, 2 * SIZE.width, columns=SIZE.hidden),
        make.normal(SIZE.experts, 2 * SIZE.width),
        *make.mxfp4(SIZE.experts, SIZE.hidden, columns=SIZE.width),
        make.normal(SIZE.experts, SIZE.hidden),
    )
    x = make.normal(tokens, SIZE.hidden)
    weights = torch.full((tokens, SIZE.slots), 1 / SIZE.slots)
    if tokens == 1:  # all experts in turn, so that none is still in the cache
        choices = list(torch.randperm(SIZE.experts).view(-1, 1, SIZE.slots).int())
    else:
        scores = torch.rand(8, tokens, SIZE.experts)
        choices = list(scores.topk(SIZE.slots).indices.int())
    one = 3 * SIZE.width * SIZE.hidden
    read = statistics.mean(len(ids.unique()) for ids in choices)
    calls = [
        lambda ids=ids: expert_mlp(x, ids, weights, layer, alpha=1.702, limit=7.0)
        for ids in choices
    ]
    name = f"experts of a layer, {counted(tokens)}"
    return Timed(name, int(one // 32 * 17 * read), 2 * one * tokens * SIZE.slots, calls)


def work() -> list[Timed]:
    """Everything but reading: first what decodes a token, then more tokens."""
    make, double = Make("cpu"), 2 * SIZE.width
    made = [mxfp4(make, double, SIZE.hidden, 1), mxfp4(make, SIZE.hidden, SIZE.width, 1)]
    made.append(experts(make, 1))
    for rows in (SIZE.qkv_rows, SIZE.vocab // 8):
        made += bfloat16(make, rows, SIZE.hidden, 1)
    for path in machine.paths()[1:]:  # what machines with less have
        made.append(mxfp4(make, double, SIZE.hidden, 1, path))
    for tokens in (4, 8, 32, 33, 128):
        made.append(mxfp4(make, double, SIZE.hidden, tokens))
    for tokens in (8, 128, 512):
        made.append(experts(make, tokens))
    for tokens in (4, 5):
        made += bfloat16(make, SIZE.qkv_rows, SIZE.hidden, tokens)
    return made
