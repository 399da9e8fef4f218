"""MXFP4 in Triton: packed blocks to numbers and back, with the same bits as `reference`.

    group      0                1                2
    bytes    [ 16 ] [ 16 ] ... [ 16 ]      dequantize: 17 bytes become 32 numbers
    scales     1      1          1         quantize: 32 numbers become 17 bytes
             \\______ program 0 ______/

Groups do not depend on each other, so rows and columns do not matter: a program processes GROUPS
consecutive groups, wherever they are in the matrix. Each byte and each number is read or written
once, so memory is the limit.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.checks import FLOATS
from oss_kernels.launch import Launch
from oss_kernels.mxfp4.checks import check_packed
from oss_kernels.mxfp4.decode import decode_tile
from oss_kernels.mxfp4.reference import BLOCK, Rule, require_finite

# Groups per program. Each of its 128 threads then has at least 16 bytes to load at a time.
PACKED_GROUPS, NUMBER_GROUPS = 256, 128


@triton.jit
def dequantize_kernel(blocks, scales, out, count, GROUPS: tl.constexpr):
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)  # 64 bits: group * 32
    within = (group < count)[:, None]
    codes = tl.load(  # [GROUPS, 1, 16], since `decode_tile` expects rows: each row is one group
        blocks + group[:, None, None] * 16 + tl.arange(0, 16)[None, None, :],
        mask=within[:, :, None],
        other=0,
    )
    scale = tl.load(scales + group[:, None], mask=within, other=0)
    numbers = decode_tile(codes, scale)
    if out.dtype.element_ty == tl.bfloat16:
        # A bfloat16 is the upper half of a float32, and here the lower half is zero. (The
        # interpreter's own conversion turns subnormals into zeros.)
        halves = (numbers.to(tl.int32, bitcast=True) >> 16).to(tl.int16)
        numbers = halves.to(tl.bfloat16, bitcast=True)
    tl.store(out + group[:, None] * 32 + tl.arange(0, 32), numbers, mask=within)


@triton.jit
def quantize_kernel(weight, blocks, scales, count, FIT: tl.constexpr, GROUPS: tl.constexpr):
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    within = group < count
    place = group[:, None] * 32 + tl.arange(0, 32)
    # [GROUPS, 32]
    numbers = tl.load(weight + place, mask=within[:, None], other=0.0).to(tl.float32)
    # The largest magnitude is 1.mantissa x 2^(exponent - 127), or a subnormal with exponent 0. For
    # exponents up to 2, subnormals included, the scale byte is clamped to 0.
    largest = tl.max(tl.abs(numbers), axis=1)
    bits = tl.cast(largest, tl.int32, bitcast=True)
    byte = (bits >> 23) - 2
    if FIT:
        byte += ((bits & 0x7FFFFF) > 0x400000).to(tl.int32)  # mantissa above 1.5: above 6 units
    byte = tl.where(bits == 0, 127, tl.maximum(byte, 0))
    # 2^(127 - byte) is a normal number, since byte is at most 253.
    units = numbers * ((254 - byte) << 23).to(tl.float32, bitcast=True)[:, None]
    magnitude = tl.abs(units)
    # The code goes up by one at each midpoint between neighbors. Ties go to the even code.
    code = (magnitude > 0.25).to(tl.int32) + (magnitude >= 0.75).to(tl.int32)
    code += (magnitude > 1.25).to(tl.int32) + (magnitude >= 1.75).to(tl.int32)
    code += (magnitude > 2.5).to(tl.int32) + (magnitude >= 3.5).to(tl.int32)
    code += (magnitude > 5.0).to(tl.int32)
    code |= (numbers.to(tl.int32, bitcast=True) >> 28) & 8
    low, high = tl.split(tl.reshape(code, (GROUPS, 16, 2)))
    packed = (low | (high << 4)).to(tl.uint8)
    tl.store(blocks + group[:, None] * 16 + tl.arange(0, 16), packed, mask=within[:, None])
    tl.store(scales + group, byte.to(tl.uint8), mask=within)


def launch_dequantize(blocks: Tensor, scales: Tensor, out: Tensor) -> Launch:
    """The launch: one program per PACKED_GROUPS groups. All tensors are contiguous."""
    count = scales.numel()
    return Launch(
        dequantize_kernel,
        (triton.cdiv(count, PACKED_GROUPS),),
        {"blocks": blocks, "scales": scales, "out": out, "count": count},
        {"GROUPS": PACKED_GROUPS},
    )


def launch_quantize(weight: Tensor, blocks: Tensor, scales: Tensor, rule: Rule) -> Launch:
    """The launch: one program per NUMBER_GROUPS groups. All tensors are contiguous."""
    count = scales.numel()
    return Launch(
        quantize_kernel,
        (triton.cdiv(count, NUMBER_GROUPS),),
        {"weight": weight, "blocks": blocks, "scales": scales, "count": count},
        {"FIT": rule == "fit", "GROUPS": NUMBER_GROUPS},
    )


def dequantize(
    blocks: UInt8[Tensor, "*rows groups 16"],
    scales: UInt8[Tensor, "*rows groups"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*rows width"]:
    """The operation of `reference.dequantize`, for float32 and bfloat16."""
    check_packed(blocks, scales)
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be float32 or bfloat16 for the Triton kernel, not {dtype}")
    out = torch.empty(
        *scales.shape[:-1], scales.shape[-1] * BLOCK, dtype=dtype, device=scales.device
    )
    launch_dequantize(blocks.contiguous(), scales.contiguous(), out)()
    return out


def quantize(
    weight: Float[Tensor, "*rows width"], rule: Rule = "fit"
) -> tuple[UInt8[Tensor, "*rows groups 16"], UInt8[Tensor, "*rows groups"]]:
    """The operation of `reference.quantize`. Checking for NaN and infinity waits for the device."""
    groups = require_finite(weight.float()).contiguous().unflatten(-1, (-1, BLOCK))
    blocks = groups.new_empty(*groups.shape[:-1], BLOCK // 2, dtype=torch.uint8)
    scales = groups.new_empty(groups.shape[:-1], dtype=torch.uint8)
    launch_quantize(groups, blocks, scales, rule)()
    return blocks, scales
