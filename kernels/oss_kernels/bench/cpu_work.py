"""What the CPU benchmark times: our kernels at gpt-oss's sizes, torch's, and reading memory.

Calls cycle through copies of the weights, so each call reads them from memory and not from the L3
cache.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from oss_kernels.cases import Make, format_token_count
from oss_kernels.cpu import machine
from oss_kernels.experts.cpu import expert_mlp
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.linear.cpu import linear
from oss_kernels.mxfp4_linear.cpu import multiply_by_rows, mxfp4_linear
from oss_kernels.shapes import GPT_OSS_20B

MEMORY = 200e6  # minimum bytes of all copies together: several times the L3 cache of a desktop
SIZE = GPT_OSS_20B


@dataclass(frozen=True)
class TimedWork:
    """One thing to time.

    Attributes:
        bytes: weights that a call reads, each counted once; for experts an average.
        flops: floating-point operations per call.
        calls: one per copy of the weights, to be made in turn.
    """

    name: str
    bytes: int
    flops: int
    calls: Sequence[Callable[[], object]]


def count_copies(size: int) -> range:
    return range(max(2, -(-int(MEMORY) // size)))


def make_reading() -> TimedWork:
    """A torch sum over 16 MB, the size of a large matrix."""
    size = 16_000_000
    arrays = [torch.ones(size // 8, dtype=torch.int64) for _ in count_copies(size)]
    return TimedWork("reading memory", size, 0, [lambda a=a: a.sum() for a in arrays])


def mxfp4(
    make: Make, rows: int, columns: int, tokens: int, path: machine.InstructionSet | None = None
) -> TimedWork:
    """The MXFP4 linear layer as callers get it or, with a path, its row kernel on that path."""
    size = rows * columns // 32 * 17
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.mxfp4(rows, columns=columns) for _ in count_copies(size)]
    product = partial(multiply_by_rows, path=path) if path else mxfp4_linear
    calls = [lambda w=w: product(x, w[0], w[1], bias) for w in weights]
    name = (
        f"MXFP4 {columns} to {rows}, {format_token_count(tokens)}{f', {path} path' if path else ''}"
    )
    return TimedWork(name, size, 2 * tokens * rows * columns, calls)


def bfloat16(make: Make, rows: int, columns: int, tokens: int) -> list[TimedWork]:
    """Our kernel and torch's on the same weights."""
    size = 2 * rows * columns
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.normal(rows, columns) for _ in count_copies(size)]
    return [
        TimedWork(
            f"bfloat16 {columns} to {rows}, {format_token_count(tokens)}{by}",
            size,
            2 * tokens * rows * columns,
            [lambda w=w, function=function: function(x, w, bias) for w in weights],
        )
        for by, function in (("", linear), (", torch", F.linear))
    ]


def experts(make: Make, tokens: int) -> TimedWork:
    """One layer of 20b with its 32 experts. Each call has a different random choice of experts."""
    layer = ExpertWeights(
        *make.mxfp4(SIZE.experts, 2 * SIZE.width, columns=SIZE.hidden),
        make.normal(SIZE.experts, 2 * SIZE.width),
        *make.mxfp4(SIZE.experts, SIZE.hidden, columns=SIZE.width),
        make.normal(SIZE.experts, SIZE.hidden),
    )
    x = make.normal(tokens, SIZE.hidden)
    weights = torch.full((tokens, SIZE.slots), 1 / SIZE.slots)
    if tokens == 1:  # use all experts in turn, so none is still in the cache
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
    name = f"experts of a layer, {format_token_count(tokens)}"
    return TimedWork(name, int(one // 32 * 17 * read), 2 * one * tokens * SIZE.slots, calls)


def make_work() -> list[TimedWork]:
    """Everything except reading: first the kernels for one token, then those for more."""
    make, double = Make("cpu"), 2 * SIZE.width
    made = [mxfp4(make, double, SIZE.hidden, 1), mxfp4(make, SIZE.hidden, SIZE.width, 1)]
    made.append(experts(make, 1))
    for rows in (SIZE.qkv_rows, SIZE.vocab // 8):
        made += bfloat16(make, rows, SIZE.hidden, 1)
    for path in machine.list_paths()[1:]:  # the paths of less capable machines
        made.append(mxfp4(make, double, SIZE.hidden, 1, path))
    for tokens in (4, 8, 32, 33, 128):
        made.append(mxfp4(make, double, SIZE.hidden, tokens))
    for tokens in (8, 128, 512):
        made.append(experts(make, tokens))
    for tokens in (4, 5):
        made += bfloat16(make, SIZE.qkv_rows, SIZE.hidden, tokens)
    return made
