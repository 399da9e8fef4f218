"""RoPE with YaRN against recorded constants, an independent derivation in NumPy, and its
properties.

The table is for the published models (head_dim 64, theta 150,000, context 4,096 times 32) in NumPy
float32, with low and high - low computed in double. PyTorch's pow differs in the last bit of some
entries, so there is a relative tolerance of 2e-6.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.model.rope import (
    inverse_frequencies,
    ramp_limits,
    rotate,
    rotation,
    yarn_concentration,
)

# fmt: off
GOLDEN = [
    1, 0.689044297, 0.47478205, 0.327145845, 0.225418001, 0.155322984, 0.107024424, 0.0737445652,
    0.05081328, 0.0317056961, 0.0193350017, 0.0115920492, 0.00679495931, 0.00386035908,
    0.00209379266, 0.00105260219, 0.000456483918, 0.000129318694, 3.83088118e-05, 2.63964721e-05,
    1.8188337e-05, 1.25325696e-05, 8.63549576e-06, 5.95023948e-06, 4.09997847e-06, 2.82506676e-06,
    1.94659629e-06, 1.34129107e-06, 9.24208962e-07, 6.36820914e-07, 4.38797855e-07, 3.0235114e-07,
]
# fmt: on


def yarn_in_double(config, low: float, high: float) -> np.ndarray:
    pair = np.arange(config.head_dim // 2)
    kept = config.rope_theta ** (-2.0 * pair / config.head_dim)
    kept_share = 1 - np.clip((pair - low) / (high - low), 0, 1)
    return kept * kept_share + kept / config.rope_scaling_factor * (1 - kept_share)


def test_golden_constants_of_the_published_models():
    low, high = ramp_limits(GPT_OSS_20B)
    assert low == pytest.approx(8.092779115512402, rel=1e-14)
    assert high == pytest.approx(17.39802450158856, rel=1e-14)
    assert yarn_concentration(GPT_OSS_20B.rope_scaling_factor) == pytest.approx(
        1.3465735902799727, rel=1e-15
    )
    assert yarn_concentration(GPT_OSS_20B.rope_scaling_factor) ** 2 == pytest.approx(
        1.8132604340394958, rel=1e-15
    )


def test_golden_inverse_frequencies():
    ours = inverse_frequencies(GPT_OSS_20B)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), np.array(GOLDEN, np.float32), rtol=2e-6)


def test_limits_rounded_to_integers_would_change_the_model():
    """Hugging Face's default truncation, which gpt-oss turns off, changes one entry by 76%."""
    ours = inverse_frequencies(GPT_OSS_20B).double().numpy()
    np.testing.assert_allclose(ours, yarn_in_double(GPT_OSS_20B, *ramp_limits(GPT_OSS_20B)), 2e-6)
    truncated = yarn_in_double(GPT_OSS_20B, 8, 18)
    differences = np.abs(truncated / ours - 1)
    assert differences.argmax() == 17
    assert differences.max() == pytest.approx(0.76, abs=0.005)


def test_nano_has_the_same_ramp_in_fewer_dimensions():
    low, high = ramp_limits(GPT_OSS_NANO)
    assert (round(low, 3), round(high, 3)) == (0.162, 2.488)
    frequencies = inverse_frequencies(GPT_OSS_NANO).double().numpy()
    np.testing.assert_allclose(frequencies, yarn_in_double(GPT_OSS_NANO, low, high), rtol=2e-6)
    pure = 150_000.0 ** (-np.arange(8) / 8)
    assert frequencies[0] == 1.0  # unchanged
    np.testing.assert_allclose(frequencies[3:], pure[3:] / 32, rtol=2e-6)  # interpolated
    assert ((frequencies < pure) & (frequencies > pure / 32))[1:3].all()  # between the two


def test_without_scaling_it_is_plain_rope():
    config = replace(GPT_OSS_20B, rope_scaling_factor=1.0)
    assert yarn_concentration(config.rope_scaling_factor) == 1.0
    plain = 150_000.0 ** (-np.arange(32) / 32)
    np.testing.assert_allclose(inverse_frequencies(config).numpy(), plain, rtol=2e-6)


def test_the_concentration_is_on_cos_and_sin_at_every_position():
    cos, sin = rotation(GPT_OSS_20B, torch.tensor([[0, 1, 100, 5000]]), torch.float32)
    assert cos.shape == sin.shape == (1, 1, 4, 64)
    length = yarn_concentration(GPT_OSS_20B.rope_scaling_factor)
    np.testing.assert_allclose(torch.hypot(cos, sin).numpy(), length, rtol=1e-6)
    assert cos[0, 0, 0].unique().tolist() == [pytest.approx(length)]
    assert not sin[0, 0, 0].any()


def test_tables_are_computed_in_float32_and_then_rounded():
    positions = torch.tensor([[131_071]])
    for exact, rounded in zip(
        rotation(GPT_OSS_20B, positions, torch.float32),
        rotation(GPT_OSS_20B, positions, torch.bfloat16),
        strict=True,
    ):
        assert torch.equal(exact.bfloat16(), rounded)


def test_halves_are_rotated_not_neighboring_pairs():
    for one, other, sign in ((1, 33, 1), (33, 1, -1)):  # the partners are half a head apart
        x = torch.zeros(1, 1, 1, 64)
        x[..., one] = 1.0
        turned = rotate(x, *rotation(GPT_OSS_20B, torch.tensor([[3]]), torch.float32))
        angle, length = 3 * GOLDEN[1], yarn_concentration(GPT_OSS_20B.rope_scaling_factor)
        expected = torch.zeros(64)
        expected[one], expected[other] = math.cos(angle), sign * math.sin(angle)
        torch.testing.assert_close(turned.flatten(), length * expected)


def test_products_depend_only_on_the_distance():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 64, generator=generator).double() for _ in range(2))

    def product(query_at: int, key_at: int) -> float:
        at = torch.tensor([[query_at]]), torch.tensor([[key_at]])
        turned = [
            rotate(x, *rotation(GPT_OSS_20B, p, torch.float64))
            for x, p in zip((q, k), at, strict=True)
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(2007, 2003), rel=1e-3)
    assert product(7, 3) != pytest.approx(product(7, 5), rel=1e-2)
