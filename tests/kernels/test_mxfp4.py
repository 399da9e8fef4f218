"""The MXFP4 reference coder against the OCP definition (MX v1.0, sections 5.2-5.4) in float64.

The definition is implemented again here, from the bit fields. Otherwise the table and the search in
`reference.py` would be compared with themselves.
"""

import pytest
import torch
from oss_kernels import mxfp4

from oss_lab.config import MXFP4_BLOCK

FINITE_SCALES = range(253)  # 6 times 2^126 or 2^127 exceeds the range of float32
BLOCKS = 20_000


def e2m1(code: int) -> float:
    """Sign, two exponent bits of bias 1, one mantissa bit; exponent 0 is subnormal."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    magnitude = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return -magnitude if sign else magnitude


def scale(byte: int) -> float:
    return float("nan") if byte == 255 else 2.0 ** (byte - 127)


def is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal numbers, NaN at the same places, and zeros with the same sign."""
    number = ~a.isnan()
    signs = torch.signbit(a) == torch.signbit(b)
    return torch.equal(number, ~b.isnan()) and bool(((a == b) & signs)[number].all())


def random_blocks(seed: int, scales: range, count: int = BLOCKS):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (count, 1, 16), generator=generator, dtype=torch.uint8)
    exponents = torch.randint(scales.start, scales.stop, (count, 1), generator=generator)
    return blocks, exponents.to(torch.uint8)


def test_the_config_and_the_coder_use_the_same_block_size() -> None:
    """`oss_lab.config` repeats the block size because it is used where torch is not imported."""
    assert MXFP4_BLOCK == mxfp4.BLOCK


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_code_at_every_scale_decodes_to_the_ocp_number(dtype):
    codes = torch.arange(16, dtype=torch.uint8).repeat(2).expand(256, 1, 32)
    decoded = mxfp4.dequantize(
        mxfp4.pack_nibbles(codes), torch.arange(256, dtype=torch.uint8)[:, None], dtype
    )
    expected = torch.tensor(
        [[e2m1(code) * scale(byte) for code in range(16)] * 2 for byte in range(256)],
        dtype=torch.float64,
    )
    assert decoded.dtype == dtype
    assert is_same(decoded, expected.to(dtype))


def test_the_low_nibble_comes_first():
    block = torch.full((1, 16), 0xF2, dtype=torch.uint8)
    decoded = mxfp4.dequantize(block, torch.tensor([128], dtype=torch.uint8))
    assert decoded.tolist() == [2.0, -12.0] * 16


def test_nibbles_unpack_in_order_and_pack_back():
    data = torch.arange(256, dtype=torch.uint8).view(16, 16)
    codes = mxfp4.unpack_nibbles(data)
    assert codes.shape == (16, 32)
    assert codes[0, :4].tolist() == [0, 0, 1, 0]
    assert codes[15, -2:].tolist() == [15, 15]
    assert torch.equal(mxfp4.pack_nibbles(codes), data)


def test_a_nan_scale_makes_its_own_block_nan_and_no_other():
    scales = torch.tensor([[127, mxfp4.NAN_SCALE]], dtype=torch.uint8)
    decoded = mxfp4.dequantize(torch.full((1, 2, 16), 0x22, dtype=torch.uint8), scales)
    assert decoded[0, :32].eq(1).all()
    assert decoded[0, 32:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scales", [FINITE_SCALES, range(117, 128)], ids=["all", "usual"])
def test_quantizing_decoded_blocks_again_changes_nothing(dtype, scales):
    decoded = mxfp4.dequantize(*random_blocks(1, scales), dtype)
    again = mxfp4.dequantize(*mxfp4.quantize(decoded), dtype)
    assert is_same(decoded, again)


def test_the_smallest_and_largest_scales_survive():
    for byte in (0, 1, 2, 252):
        decoded = mxfp4.dequantize(*random_blocks(byte, range(byte, byte + 1), 500))
        assert is_same(decoded, mxfp4.dequantize(*mxfp4.quantize(decoded)))


def quantize_by_search(weight: torch.Tensor) -> torch.Tensor:
    """By trying all: the smallest scale that fits the block, then the nearest of the 16 codes."""
    values = torch.tensor([e2m1(code) for code in range(16)], dtype=torch.float64)
    powers = torch.tensor([scale(byte) for byte in range(255)], dtype=torch.float64)
    blocks = weight.double().unflatten(-1, (-1, 32))
    fits = blocks.abs().amax(-1, keepdim=True) <= 6 * powers
    scaled = blocks / powers[fits.int().argmax(-1)][..., None]
    distances = (scaled[..., None] - values).abs()
    # Of two equally near codes the even one; minus zero only for negative numbers.
    penalty = torch.tensor([code % 2 for code in range(16)]) * 1e-9
    wrong_sign = torch.signbit(scaled)[..., None] != torch.signbit(values)
    code = (distances + penalty + wrong_sign * 1e-6).argmin(-1)
    rounded = values[code] * powers[fits.int().argmax(-1)][..., None]
    return rounded.flatten(-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.0, 3.0, 25.0], ids=["even", "wide", "any exponent"])
def test_quantizing_rounds_to_the_nearest_number(dtype, spread):
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(500, 64, generator=generator)
    weight *= 2.0 ** (torch.randn(500, 1, generator=generator) * spread)
    weight = weight.to(dtype)
    blocks, scales = mxfp4.quantize(weight)
    assert is_same(mxfp4.dequantize(blocks, scales, torch.float64), quantize_by_search(weight))


def test_ties_go_to_the_even_code_and_their_neighbors_do_not():
    ties = {0.25: 0.0, 0.75: 1.0, 1.25: 1.0, 1.75: 2.0, 2.5: 2.0, 3.5: 4.0, 5.0: 4.0}
    weight = torch.zeros(6, 32)
    weight[:, 0] = 6.0  # the scale becomes 1
    for column, (tie, even) in enumerate(ties.items(), start=1):
        weight[0, column], weight[1, column] = tie, -tie
        weight[2, column] = torch.nextafter(torch.tensor(tie), torch.tensor(9.0))
        weight[3, column] = torch.nextafter(torch.tensor(tie), torch.tensor(0.0))
        weight[4, column], weight[5, column] = even, -even
    decoded = mxfp4.dequantize(*mxfp4.quantize(weight))
    assert is_same(decoded[0], decoded[4])
    assert torch.equal(decoded[1, 1:8], decoded[5, 1:8])
    neighbors = decoded[2, 1:8] - decoded[3, 1:8]
    assert (neighbors > 0).all()  # one ulp on either side rounds to different codes


def test_the_largest_of_a_block_never_saturates():
    largest = torch.cat([2.0 ** torch.arange(-120.0, 126) * m for m in (1, 1.49, 1.51, 1.75, 1.99)])
    weight = largest[:, None].expand(-1, 32).contiguous()
    blocks, scales = mxfp4.quantize(weight)
    decoded = mxfp4.dequantize(blocks, scales, torch.float64)
    assert (decoded / weight.double() - 1).abs().max() <= 1 / 7  # 3.5 between 3 and 4
    exponents = torch.exp2(scales.double() - mxfp4.SCALE_BIAS)
    assert (largest[:, None].double() <= 6 * exponents).all()
    assert (largest[:, None].double() > 3 * exponents).all()  # half the scale would saturate


def test_zeros_keep_their_sign_and_have_a_usable_scale():
    weight = torch.zeros(1, 64)
    weight[0, ::2] = -0.0
    blocks, scales = mxfp4.quantize(weight)
    assert is_same(mxfp4.dequantize(blocks, scales), weight)
    assert (scales == mxfp4.SCALE_BIAS).all()


def test_numbers_below_the_smallest_scale_round_there():
    smallest = 2.0**-128  # code 1 under scale byte 0
    weight = torch.tensor([[1.0, 0.5, 0.501, 1.5, 2.5, -0.4] + [0.0] * 26], dtype=torch.float64)
    weight = (weight * smallest).float()
    decoded = mxfp4.dequantize(*mxfp4.quantize(weight), torch.float64) / smallest
    assert decoded[0, :6].tolist() == [1.0, 0.0, 1.0, 2.0, 2.0, 0.0]
    assert torch.signbit(decoded[0, 5])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_mxfp4_cannot_represent_are_refused(bad):
    weight = torch.ones(2, 32, dtype=torch.float64)
    weight[1, 7] = bad
    with pytest.raises(ValueError, match="cannot store"):
        mxfp4.quantize(weight)


@pytest.mark.parametrize("shape", [(32,), (3, 32), (2, 3, 96), (0, 64)])
def test_shapes(shape):
    blocks, scales = mxfp4.quantize(torch.ones(shape))
    assert blocks.shape == (*shape[:-1], shape[-1] // 32, 16)
    assert scales.shape == (*shape[:-1], shape[-1] // 32)
    assert blocks.dtype == scales.dtype == torch.uint8
    assert mxfp4.dequantize(blocks, scales).shape == shape
    with pytest.raises(RuntimeError):
        mxfp4.quantize(torch.ones(*shape[:-1], 33))


def test_the_floor_rule_follows_the_ocp_definition():
    """Section 6.3: the scale is the largest power of two not above the largest magnitude, divided
    by 4. Then each element is rounded to its nearest code; larger ones become 6."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(500, 32, generator=generator, dtype=torch.float64)
    weight = (weight * 2.0 ** (torch.randn(500, 1, generator=generator) * 20)).float()
    blocks, scales = mxfp4.quantize(weight, "floor")
    powers = torch.tensor([2.0**exponent for exponent in range(-149, 128)], dtype=torch.float64)
    largest = weight.double().abs().amax(-1, keepdim=True)
    unit = powers.where(powers <= largest, 0).amax(-1, keepdim=True) / 4
    assert torch.equal(torch.exp2(scales.double() - mxfp4.SCALE_BIAS), unit)
    values = torch.tensor([e2m1(code) for code in range(16)], dtype=torch.float64)
    best = ((weight.double() / unit)[..., None] - values).abs().amin(-1)
    decoded = mxfp4.dequantize(blocks, scales, torch.float64)
    assert torch.equal((weight.double() - decoded).abs() / unit, best)
    saturated = largest > 6 * unit
    assert 0 < saturated.sum() < 500
    assert (decoded.abs().amax(-1, keepdim=True) == 6 * unit)[saturated].all()


def test_the_rules_differ_exactly_where_the_largest_would_saturate():
    weight = torch.zeros(5, 32)
    weight[:, 3] = torch.tensor([4.0, 6.0, 6.0001, 7.9, 8.0])
    fit, floor = (mxfp4.quantize(weight, rule)[1].flatten().tolist() for rule in ("fit", "floor"))
    assert fit == [127, 127, 128, 128, 128]
    assert floor == [127, 127, 127, 127, 128]


@pytest.mark.parametrize("scales", [FINITE_SCALES, range(117, 128)], ids=["all", "usual"])
def test_the_floor_rule_changes_nothing_in_decoded_blocks(scales):
    decoded = mxfp4.dequantize(*random_blocks(5, scales))
    assert is_same(decoded, mxfp4.dequantize(*mxfp4.quantize(decoded, "floor")))


def test_the_largest_float_saturates_under_the_floor_rule_only():
    weight = torch.full((1, 32), torch.finfo(torch.float32).max)
    assert mxfp4.quantize(weight, "fit")[1].item() == 253
    blocks, scales = mxfp4.quantize(weight, "floor")
    assert scales.item() == 252
    assert mxfp4.dequantize(blocks, scales)[0, 0] == 1.5 * 2.0**127


def assert_packs_alike(weight):
    assert all(map(torch.equal, mxfp4.pack(weight), mxfp4.quantize(weight)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_pack_gives_the_bytes_of_the_definition(dtype):
    """For every BF16 number, ties, zeros, subnormal numbers, and groups of mixed size."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = patterns[patterns.isfinite()]
    shuffled = every[torch.randperm(len(every), generator=generator)]
    neighbors = shuffled[: len(every) // 32 * 32].view(-1, 32)
    assert_packs_alike(neighbors.to(dtype))
    assert_packs_alike(every[: len(every) // 32 * 32].view(-1, 32).to(dtype))
    ties = torch.randint(-25, 26, (200, 96), generator=generator) / 4
    assert_packs_alike(ties.to(dtype))
    for exponent in range(-140, 120, 13):
        spread = 2.0 ** torch.randint(-5, 5, (20, 64), generator=generator)
        numbers = torch.randn(20, 64, generator=generator) * spread * 2.0**exponent
        assert_packs_alike(numbers.to(dtype))
    assert_packs_alike(torch.tensor([0.0, -0.0]).repeat(3, 16).to(dtype))


def test_pack_takes_other_shapes_and_dtypes():
    weight = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    assert_packs_alike(weight.transpose(0, 1))
    assert_packs_alike(weight.double())
    assert_packs_alike(weight.half())
    blocks, scales = mxfp4.pack(torch.zeros(0, 64))
    assert (blocks.shape, scales.shape) == ((0, 2, 16), (0, 2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_pack_refuses_what_is_not_finite(value, dtype):
    weight = torch.ones(4, 64, dtype=dtype)
    weight[2, 40] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        mxfp4.pack(weight)
