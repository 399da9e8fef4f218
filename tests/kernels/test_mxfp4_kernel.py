"""MXFP4 in Triton against the reference, bit for bit. `test_mxfp4.py` compares the reference with
OCP's definition."""

import pytest
import torch
from oss_kernels.mxfp4 import reference

kernel = pytest.importorskip("oss_kernels.mxfp4.kernel", reason="triton is not installed")
DTYPES = [torch.float32, torch.bfloat16]
RULES = ["fit", "floor"]


def has_same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same bits, except that all NaNs count as equal."""
    as_integers = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[a.element_size()]
    equal = a.view(as_integers) == b.view(as_integers)
    return (
        a.dtype == b.dtype and a.shape == b.shape and bool((equal | (a.isnan() & b.isnan())).all())
    )


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Each byte under each scale, including NaN scales: blocks [256 16 16], scales [256 16]."""
    blocks = torch.arange(256, dtype=torch.uint8).view(16, 16).repeat(256, 1, 1)
    return blocks, torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 16)


@pytest.mark.filterwarnings(
    "ignore:overflow encountered"
)  # numpy's: 6 x 2^127 is expected to overflow
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_under_every_scale_decodes_to_the_references_bits(device, dtype):
    blocks, scales = every_pair()
    decoded = kernel.dequantize(blocks.to(device), scales.to(device), dtype).cpu()
    assert has_same_bits(decoded, reference.dequantize(blocks, scales, dtype))
    assert decoded[255].isnan().all()
    assert not decoded[:255].isnan().any()
    tiny = torch.finfo(torch.float32).tiny
    assert ((decoded.float().abs() > 0) & (decoded.float().abs() < tiny)).sum() > 100  # subnormals


def test_nibbles_in_the_wrong_order_would_be_detected(device):
    blocks, scales = (tensor[127:129] for tensor in every_pair())
    swapped = (blocks << 4) | (blocks >> 4)
    decoded = kernel.dequantize(swapped.to(device), scales.to(device)).cpu()
    assert not has_same_bits(decoded, reference.dequantize(blocks, scales))


@pytest.mark.parametrize("rows", [(), (1,), (3,), (2, 5), (129,), (0,)])
def test_shapes(rng, device, rows):
    blocks = torch.randint(0, 256, (*rows, 3, 16), generator=rng, dtype=torch.uint8)
    scales = torch.randint(100, 140, (*rows, 3), generator=rng, dtype=torch.uint8)
    decoded = kernel.dequantize(blocks.to(device), scales.to(device))
    assert has_same_bits(decoded.cpu(), reference.dequantize(blocks, scales))
    again = kernel.quantize(decoded)
    for ours, theirs in zip(again, reference.quantize(decoded.cpu()), strict=True):
        assert has_same_bits(ours.cpu(), theirs)


def test_inputs_need_not_be_contiguous(rng, device):
    blocks = torch.randint(0, 256, (6, 4, 16), generator=rng, dtype=torch.uint8).to(device)
    scales = torch.randint(100, 140, (6, 4), generator=rng, dtype=torch.uint8).to(device)
    decoded = kernel.dequantize(blocks[::2, 1:3], scales[::2, 1:3]).cpu()
    assert has_same_bits(decoded, reference.dequantize(blocks.cpu(), scales.cpu())[::2, 32:96])
    weight = torch.randn(64, 5, generator=rng).T
    assert has_same_bits(kernel.quantize(weight.to(device))[0].cpu(), reference.quantize(weight)[0])


def test_every_output_is_written_and_nothing_after_it(device):
    blocks, scales = (tensor.flatten(0, 1)[:130].to(device) for tensor in every_pair())
    scales = scales.flatten()[:130].contiguous()
    out = torch.full((131, 32), float("nan"), device=device)
    kernel.launch_dequantize(blocks, scales, out)()
    assert out[:130].isfinite().all()
    assert out[130].isnan().all()
    for fill in (0, 255):
        packed = torch.full((131, 16), fill, dtype=torch.uint8, device=device)
        bytes_ = torch.full((131,), fill, dtype=torch.uint8, device=device)
        kernel.launch_quantize(out[:130], packed[:130], bytes_[:130], "fit")()
        assert has_same_bits(packed[:130].cpu(), reference.quantize(out[:130].cpu())[0][:, 0])
        assert (packed[130] == fill).all()
        assert bytes_[130] == fill


def edge_case_weights(rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Weights close to every value at which a scale or a code changes."""
    powers = 2.0 ** torch.cat([torch.arange(-126.0, 127, 7), torch.tensor([-125.0, 127])])[:, None]
    largest = torch.tensor([1.0, 1.25, 1.5, 1.75, 1.999999])
    at_1_5 = torch.nextafter(torch.tensor(1.5), torch.tensor([0.0, 9.0]))
    heads = (powers * torch.cat([largest, at_1_5])).flatten()[:, None]
    midpoints = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    around = torch.cat(
        [midpoints, *(torch.nextafter(midpoints, torch.tensor(b)) for b in (0.0, 9.0))]
    )
    ties = torch.zeros(4, 64)
    ties[:2, 1:22], ties[2:, 1:22] = around, -around
    ties[:, 0] = torch.tensor([6.0, 4.0, 7.9, -6.0])
    zeros = torch.zeros(2, 32)
    zeros[1] = -0.0
    bits = torch.randint(0, 0x7F800000, (300, 32), generator=rng, dtype=torch.int32)
    return {
        "normal": torch.randn(200, 64, generator=rng) * 2.0 ** torch.randn(200, 1, generator=rng),
        "any bits": bits.view(torch.float32) * torch.randn(300, 32, generator=rng).sign(),
        "largest": heads
        * (torch.rand(len(heads), 32, generator=rng) * 2 - 1).index_fill_(
            1, torch.tensor([7]), 1.0
        ),
        "ties": ties,
        "zeros": zeros,
        "subnormal": torch.randn(50, 32, generator=rng) * 2.0**-130,
        "smallest": torch.full((1, 32), 2.0**-149),
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_quantizing_gives_the_references_bytes(rng, device, dtype, rule):
    for name, weight in edge_case_weights(rng).items():
        weight = weight.to(dtype)
        # A bfloat16 cannot represent the largest float32.
        weight = weight.where(weight.isfinite(), 1.0)
        blocks, scales = kernel.quantize(weight.to(device), rule)
        expected_blocks, expected_scales = reference.quantize(weight, rule)
        assert has_same_bits(scales.cpu(), expected_scales), name
        assert has_same_bits(blocks.cpu(), expected_blocks), name


def test_the_two_rules_differ(rng, device):
    weight = torch.randn(50, 32, generator=rng).to(device)
    assert not has_same_bits(kernel.quantize(weight, "fit")[1], kernel.quantize(weight, "floor")[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_mxfp4_cannot_represent_are_refused(device, bad):
    weight = torch.ones(2, 32, device=device)
    weight[1, 7] = bad
    with pytest.raises(ValueError, match="cannot store"):
        kernel.quantize(weight)


def test_a_type_with_too_small_a_range_is_refused(device):
    blocks, scales = (tensor.to(device) for tensor in every_pair())
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        kernel.dequantize(blocks, scales, torch.float16)
