"""The final norm, the unembedding and sampling in two Triton kernels: argmax(logits + T gumbel).

    ids 0-63     rows of weight  . x  ->  64 logits per token  ->  best score, its id and logit,
    ids 64-127   rows of weight  . x      (program 1)              log of the sum of exponentials
    ...                                     |
                                            v  3,142 blocks for a vocabulary of 201,088
    token 0      the best of all blocks     ->  id, log-probability  (`draw.py`, program 0)

Logits are written to memory only on request, for the most likely ids (`alternatives.py`). 20b reads
1.16 GB of weights here, a third of all bytes of a decode step, so only the speed of this reading
matters. The rows stream through shared memory: while one tile [64 ids, 128 columns] is multiplied,
the next ones are loading. Tokens are padded to 16, the width of a matrix instruction, so up to 16
tokens cost almost the same as one.

As in `qkv_rope`, 1 / rms is applied after the product, and the sum of squares is computed alongside
it. The kernel rounds x times the norm's scale to bfloat16 for the matrix instructions; the model
rounds the normalized x instead. Logits stay in float32; the model rounds them too.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_kernels.launch import Launch, dot_dtype
from oss_kernels.unembed.alternatives import launch_alternatives
from oss_kernels.unembed.checks import check_unembed
from oss_kernels.unembed.draw import best_of_all_kernel, gumbel, log_sum_exp

ROWS, TOKENS = 64, 16
COLUMNS = {torch.bfloat16: 128, torch.float32: 16}
"""Columns per tile for each dtype of the weights. Three bfloat16 tiles are 48 KiB of shared memory.
float32 is multiplied without matrix instructions, and its tiles must fit in registers."""


@triton.jit
def best_of_block_kernel(
    x, norm_scale, weight, usable, seed, at, temperature, scores, ids, logits, sums,
    all_logits, peaks, tokens, hidden, vocab, blocks, eps, at_stride,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)  # 64 bits: id * hidden
    id = block * ROWS + tl.arange(0, ROWS)
    token = tl.program_id(1).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    exists, present = id < vocab, token < tokens
    logit = tl.zeros([ROWS, TOKENS], tl.float32)
    squares = tl.zeros([COLUMNS, TOKENS], tl.float32)
    for start in range(0, hidden, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        within = column < hidden
        weights = tl.load(  # [ROWS, COLUMNS]
            weight + id[:, None] * hidden + column[None, :],
            mask=exists[:, None] & within[None, :],
            other=0.0,
        ).to(DOT_DTYPE)
        wide = tl.load(  # [COLUMNS, TOKENS]
            x + token[None, :] * hidden + column[:, None],
            mask=present[None, :] & within[:, None],
            other=0.0,
        ).to(tl.float32)
        scale = tl.load(norm_scale + column, mask=within, other=0.0).to(tl.float32)
        squares += wide * wide
        scaled = (wide * scale[:, None]).to(DOT_DTYPE)
        logit = tl.dot(weights, scaled, logit, input_precision="ieee")  # float32 without tf32
    logit *= tl.rsqrt(tl.sum(squares, axis=0) / hidden + eps)[None, :]
    logit = tl.where(exists[:, None], logit, float("-inf"))

    if all_logits is not None:  # decided at compile time
        place = token[None, :] * vocab + id[:, None]
        tl.store(all_logits + place, logit, mask=present[None, :] & exists[:, None])
        tl.store(peaks + token * blocks + block, tl.max(logit, axis=0), mask=present)
    temperatures = tl.load(temperature + token, mask=present, other=0.0)[None, :]
    seeds = tl.load(seed + token, mask=present, other=0)
    slots = tl.load(at + token * at_stride, mask=present, other=0)
    score = logit + temperatures * gumbel(seeds[None, :], slots[None, :], id[:, None])
    allowed = exists
    if usable is not None:  # decided at compile time
        allowed &= tl.load(usable + id, mask=exists, other=0).to(tl.int1)
    # NaN is not equal to itself.
    score = tl.where(allowed[:, None] & (score == score), score, float("-inf"))
    best = tl.argmax(score, axis=0, tie_break_left=True)  # [TOKENS]; ties go to the lowest id
    # Triton cannot index a tensor, so a sum with one nonzero term reads the logit of the best id.
    is_best = tl.arange(0, ROWS)[:, None] == best[None, :]
    place = token * blocks + block
    tl.store(scores + place, tl.max(score, axis=0), mask=present)
    tl.store(ids + place, (block * ROWS + best).to(tl.int32), mask=present)
    tl.store(logits + place, tl.sum(tl.where(is_best, logit, 0.0), axis=0), mask=present)
    tl.store(sums + place, log_sum_exp(logit), mask=present)


def launch(
    x: Tensor,
    norm_scale: Tensor,
    eps: float,
    weight: Tensor,
    temperature: Tensor,
    seed: Tensor,
    at: Tensor,
    usable: Tensor | None,
    out_ids: Tensor,
    out_logprobs: Tensor,
    all_logits: Tensor | None = None,
    alternatives: tuple[Tensor, Tensor] | None = None,
) -> tuple[Launch, ...]:
    """The launches: one program per 64 ids and 16 tokens, then one per token.

    All tensors are contiguous, except `at`, which is [token] with any stride, including 0.
    temperature is float32 [token].

    Args:
        all_logits: float32 [token vocab], if the logits are to be kept.
        alternatives: ids (int64) and log-probabilities (float32) [token rank], for the most likely
            ids of each token; needs all_logits.
    """
    (tokens, hidden), vocab = x.shape, len(weight)
    blocks = triton.cdiv(vocab, ROWS)
    names = ("scores", "logits", "sums", "peaks")
    found: dict[str, Tensor] = {
        name: x.new_empty(tokens, blocks, dtype=torch.float32) for name in names
    }
    peaks = found.pop("peaks")
    found["ids"] = x.new_empty(tokens, blocks, dtype=torch.int32)
    given = {"x": x, "norm_scale": norm_scale, "weight": weight, "seed": seed, "at": at}
    given |= {"temperature": temperature} | ({} if usable is None else {"usable": usable})
    given |= {} if all_logits is None else {"all_logits": all_logits, "peaks": peaks}
    sizes = {"tokens": tokens, "hidden": hidden, "vocab": vocab, "blocks": blocks}
    numbers = {"eps": eps, "at_stride": at.stride(0)}
    columns, dot = COLUMNS[weight.dtype], dot_dtype(weight.dtype)
    constants = {"ROWS": ROWS, "TOKENS": TOKENS, "COLUMNS": columns, "DOT_DTYPE": dot}
    constants |= {"usable": None} if usable is None else {}
    constants |= {"all_logits": None, "peaks": None} if all_logits is None else {}
    ranks = ()
    if alternatives is not None:
        assert all_logits is not None
        ranks = (launch_alternatives(all_logits, peaks, found["sums"], *alternatives),)
    return (
        Launch(
            best_of_block_kernel,
            (blocks, triton.cdiv(tokens, TOKENS)),
            given | found | sizes | numbers,
            constants,
            num_warps=4,
            num_stages=3,
        ),
        Launch(
            best_of_all_kernel,
            (tokens,),
            found | {"out_ids": out_ids, "out_logprobs": out_logprobs, "blocks": blocks},
            {"BLOCKS": triton.next_power_of_2(blocks)},
            num_warps=8,
        ),
        *ranks,
    )


def unembed(
    x: Float[Tensor, "token hidden"],
    norm_scale: Float[Tensor, "hidden"],
    eps: float,
    weight: Float[Tensor, "vocab hidden"],
    temperature: float,
    seed: Int[Tensor, "token"],
    at: Int[Tensor, "*token"],
    usable: Bool[Tensor, "vocab"] | None = None,
) -> tuple[Int[Tensor, "token"], Float[Tensor, "token"]]:
    """The operation of `reference.unembed`, with logits in float32."""
    check_unembed(x, norm_scale, weight, seed, at, usable)
    ids = x.new_empty(len(x), dtype=torch.int64)
    logprobs = x.new_empty(len(x), dtype=torch.float32)
    x, norm_scale, weight = x.contiguous(), norm_scale.contiguous(), weight.contiguous()
    seed, rows = seed.contiguous(), at.expand(len(x))
    usable = None if usable is None else usable.contiguous()
    temperatures = torch.full((len(x),), float(temperature), device=x.device)
    for each in launch(x, norm_scale, eps, weight, temperatures, seed, rows, usable, ids, logprobs):
        each()
    return ids, logprobs
