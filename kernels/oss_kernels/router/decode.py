"""RMSNorm and router of a decode step in Triton, over many programs.

    logits: program (expert, token)       norm x, product with one row of the weight -> one logit
    choose: program (token)               the largest logits -> ids and weights,
                                          and the normalized x, arranged for the experts

One program for a token would read all rows of the weight (184 KB in 20b, 737 KB in 120b) through a
single multiprocessor. Here each row has its own program, 32 or 128 per token. x and the norm's
scale are 11.5 KB, so every program can read and normalize x again; that is cheaper than one more
launch. The choice needs all logits, hence the second kernel.

The normalized x is rounded to x's dtype, as in the model. Logits are summed in another order than
in `kernel.py`, so their last bits may differ.
"""

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.mxfp4.arrange import store_arranged
from oss_kernels.rms_norm.kernel import normalize
from oss_kernels.router.choose import choose_experts


@triton.jit
def logits_kernel(x, norm_scale, weight, bias, logits, hidden, eps, COLUMNS: tl.constexpr):
    expert = tl.program_id(0)
    token = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    within = column < hidden
    row = tl.load(weight + expert * hidden + column, mask=within, other=0.0).to(tl.float32)
    normed = normalize(x + token * hidden, norm_scale, column, hidden, eps)
    logit = tl.sum(row * normed, axis=0) + tl.load(bias + expert).to(tl.float32)
    tl.store(logits + token * tl.num_programs(0) + expert, logit)


@triton.jit
def choose_kernel(
    x, norm_scale, logits, ids, weights, arranged, hidden, experts, eps,
    SLOTS: tl.constexpr, SLOTS_PADDED: tl.constexpr, EXPERTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    normed = normalize(x + token * hidden, norm_scale, column, hidden, eps)
    store_arranged(arranged + token * hidden, column, hidden, normed, column < hidden)
    expert = tl.arange(0, EXPERTS)[None, :]
    row = tl.load(logits + token * experts + expert, mask=expert < experts, other=0.0)
    chosen, shares = choose_experts(row, experts, SLOTS, SLOTS_PADDED)
    slot = tl.arange(0, SLOTS_PADDED)[None, :]
    tl.store(ids + token * SLOTS + slot, chosen, mask=slot < SLOTS)
    tl.store(weights + token * SLOTS + slot, shares, mask=slot < SLOTS)


def make_launches(
    x: Tensor,
    norm_scale: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    logits: Tensor,
    ids: Tensor,
    weights: Tensor,
    arranged: Tensor,
) -> tuple[Launch, Launch]:
    """The launches of logits and choose. All tensors are contiguous.

    x and arranged are [token hidden]. logits [token expert] and weights [token slot] are float32,
    and ids [token slot] int32.
    """
    (tokens, hidden), experts, slots = x.shape, len(weight), ids.shape[1]
    columns = triton.next_power_of_2(hidden)
    warps = max(1, min(8, columns // 512))
    given = {"x": x, "norm_scale": norm_scale, "logits": logits, "hidden": hidden, "eps": eps}
    return Launch(
        logits_kernel,
        (experts, tokens),
        given | {"weight": weight, "bias": bias},
        {"COLUMNS": columns},
        num_warps=warps,
    ), Launch(
        choose_kernel,
        (tokens,),
        given | {"ids": ids, "weights": weights, "arranged": arranged, "experts": experts},
        {
            "SLOTS": slots,
            "SLOTS_PADDED": triton.next_power_of_2(slots),
            "EXPERTS": triton.next_power_of_2(experts),
            "COLUMNS": columns,
        },
        num_warps=warps,
    )
