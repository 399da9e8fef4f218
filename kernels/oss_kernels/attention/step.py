"""Attention of a decode step. Lengths are on the device, as a CUDA graph needs.

Uses the kernels of `decode.py` with a grid that does not depend on the number of keys: `splits`
programs for each kv head. Each program reads the length of its row and computes its share of the
keys: the same number for every split, at least MIN_SPLIT. With few keys the last splits get none
and end at once, which costs the start of a program (4 bytes read, 32 written).

The cache may be a ring: a sliding layer keeps the last `capacity` tokens in any order. Keys are
rotated before they are stored, so the softmax does not need their order, and every slot in use is
visible.
"""

import triton
from torch import Tensor

from oss_kernels.attention.decode import KEYS, MIN_SPLIT, launch_merge, split_kernel
from oss_kernels.attention.layout import make_inputs
from oss_kernels.launch import Launch

SPLITS = 32  # of the keys in layers without a window: 256 programs for 8 kv heads


def make_step_launches(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    sinks: Tensor,
    lengths: Tensor,
    z: Tensor,
    lse: Tensor,
    parts: tuple[Tensor, Tensor] | None,
) -> tuple[Launch, ...]:
    """The launches of one query per row: all splits, then their merge if there are several.

    All tensors are contiguous. q and z are [batch head head_dim]; keys and values
    [batch kv_head capacity head_dim]; lengths int32 [batch], new token included, of which a row
    sees at most `capacity`; lse float32 [batch head].

    Args:
        parts: float32 scratch [split batch head head_dim] and [split batch head], which fixes the
            number of splits; None for a single split.
    """
    heads, head_dim, kv_heads = q.shape[1], q.shape[2], keys.shape[1]
    arguments, constants = make_inputs(q.unsqueeze(2), keys, values, sinks, None, None, 0)
    z_out, lse_out = (z, lse) if parts is None else parts
    splits = 1 if parts is None else len(lse_out)
    of_splits = Launch(
        split_kernel,
        (len(q) * kv_heads, splits),
        arguments
        | {"lengths": lengths, "z": z_out, "lse": lse_out}
        | {"begin_slot": 0, "split_keys": MIN_SPLIT},
        constants | {"ROWS": max(16, triton.next_power_of_2(heads // kv_heads)), "KEYS": KEYS},
        num_warps=4,
        num_stages=4,
    )
    if parts is None:
        return (of_splits,)
    most = triton.next_power_of_2(splits)
    return of_splits, launch_merge(parts, z, lse, (heads, 1, head_dim), most)
