"""The router in Triton: weights = softmax of the largest `slots` of x weight^T + bias.

One program computes logits, expert ids and weights of 16 tokens:

    tokens 0-15    [16 hidden] x [hidden expert] -> logits [16 expert] -> 4 x argmax -> softmax
                   `------------- program 0; it also writes the logits, for recording ------'
    tokens 16-31   program 1

A single token also uses a tile of 16, with 15 rows masked, because matrix instructions need 16
rows. Their arithmetic costs nothing next to reading the weights (184 KB in 20b). So a token's
logits are bit for bit the same alone or among thousands, which matters here: the last bit can
decide which expert is chosen.

The choice differs from the reference only if two float32 logits are exactly equal. This kernel
takes the lower expert first. The reference follows torch.topk, where the order of two equal logits
depends on the token's other logits; a kernel would have to repeat torch's algorithm.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.launch import Launch, dot_dtype
from oss_kernels.router.checks import check_router
from oss_kernels.router.choose import choose_experts

TOKENS = 16  # per program: minimum rows of a matrix instruction


@triton.jit(do_not_specialize=("tokens",))
def router_kernel(
    x,
    weight,
    bias,
    ids,
    weights,
    all_logits,
    tokens,
    hidden,
    experts,
    SLOTS: tl.constexpr,
    SLOTS_PADDED: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    expert = tl.arange(0, EXPERTS)  # padded to a power of two; the padding is never chosen
    logits = tl.zeros((TOKENS, EXPERTS), tl.float32)
    for start in range(0, hidden, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        within = columns < hidden
        x_tile = tl.load(  # [TOKENS, COLUMNS]
            x + token[:, None] * hidden + columns[None, :],
            mask=(token < tokens)[:, None] & within[None, :],
            other=0.0,
        )
        weight_tile = tl.load(  # [COLUMNS, EXPERTS]; each thread reads neighboring columns
            weight + expert[None, :] * hidden + columns[:, None],
            mask=(expert < experts)[None, :] & within[:, None],
            other=0.0,
        )
        # Products of two bfloat16 numbers are exact in float32, and they are summed in float32.
        logits = tl.dot(
            x_tile.to(DOT_DTYPE), weight_tile.to(DOT_DTYPE), logits, input_precision="ieee"
        )
    logits += tl.load(bias + expert, mask=expert < experts, other=0.0).to(tl.float32)[None, :]
    chosen_ids, shares = choose_experts(logits, experts, SLOTS, SLOTS_PADDED)
    slot = tl.arange(0, SLOTS_PADDED)
    place = token[:, None] * SLOTS + slot[None, :]
    write = (token < tokens)[:, None] & (slot < SLOTS)[None, :]
    tl.store(ids + place, chosen_ids, mask=write)
    tl.store(weights + place, shares, mask=write)
    tl.store(
        all_logits + token[:, None] * experts + expert[None, :],
        logits,
        mask=(token < tokens)[:, None] & (expert < experts)[None, :],
    )


def launch(
    x: Tensor, weight: Tensor, bias: Tensor, ids: Tensor, weights: Tensor, logits: Tensor
) -> Launch:
    """The launch: one program per 16 tokens. All tensors are contiguous."""
    tokens, hidden = x.shape
    experts, slots = len(weight), ids.shape[1]
    padded = max(16, triton.next_power_of_2(experts))
    # Up to 16 KiB of weights per step with three steps loading, which fits 64 KiB of shared memory.
    columns = max(16, min(256, 16384 // padded) // x.element_size())
    return Launch(
        router_kernel,
        (triton.cdiv(tokens, TOKENS),),
        {
            "x": x,
            "weight": weight,
            "bias": bias,
            "ids": ids,
            "weights": weights,
            "all_logits": logits,
            "tokens": tokens,
            "hidden": hidden,
            "experts": experts,
        },
        {
            "SLOTS": slots,
            "SLOTS_PADDED": triton.next_power_of_2(slots),
            "EXPERTS": padded,
            "TOKENS": TOKENS,
            "COLUMNS": columns,
            "DOT_DTYPE": dot_dtype(x.dtype),
        },
        num_warps=4,
        num_stages=4,
    )


def router(
    x: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "expert hidden"],
    bias: Float[Tensor, "expert"],
    slots: int,
) -> tuple[Int[Tensor, "token slot"], Float[Tensor, "token slot"], Float[Tensor, "token expert"]]:
    """The operation of `reference.router`, for x and weight in bfloat16 or both in float32."""
    check_router(x, weight, bias, slots)
    ids = torch.empty(len(x), slots, dtype=torch.int32, device=x.device)
    weights = torch.empty(len(x), slots, dtype=torch.float32, device=x.device)
    logits = torch.empty(len(x), len(weight), dtype=torch.float32, device=x.device)
    launch(x.contiguous(), weight.contiguous(), bias.contiguous(), ids, weights, logits)()
    return ids, weights, logits
