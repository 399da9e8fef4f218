"""Any argument may be a view: strided views of a larger tensor give the same bits."""

from dataclasses import fields

import pytest
import torch
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from oss_kernels.attention.kernel import attention
from oss_kernels.experts.kernel import expert_mlp
from oss_kernels.linear.kernel import linear
from oss_kernels.mxfp4.kernel import dequantize
from oss_kernels.mxfp4_linear.kernel import mxfp4_linear
from oss_kernels.qkv_rope.kernel import qkv_rope
from oss_kernels.rms_norm.kernel import rms_norm
from oss_kernels.router.kernel import router
from oss_kernels.unembed.kernel import unembed

EPS, CONSTANTS = 1e-5, {"alpha": 1.702, "limit": 7.0}


def interleave(tensor: Tensor) -> Tensor:
    """The same numbers as a strided view, with other numbers between them along the last axis."""
    return torch.stack((tensor, tensor.flip(-1)), dim=-1)[..., 0]


def store_by_columns(tensor: Tensor) -> Tensor:
    """The same numbers, stored column by column."""
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else interleave(tensor)


@pytest.fixture
def make_arguments(rng, device, random_mxfp4):
    """`make_arguments(operation)`: correct, contiguous arguments."""

    def normal(*shape):
        return torch.randn(*shape, generator=rng).to(device)

    def make_packed(*rows, groups):
        blocks, scales = random_mxfp4(*rows, groups=groups, low=120, high=125)
        return blocks.to(device), scales.to(device)

    def make_experts(tokens):
        experts = ExpertWeights(
            *make_packed(5, 64, groups=2),
            normal(5, 64),
            *make_packed(5, 64, groups=1),
            normal(5, 64),
        )
        ids = torch.rand(tokens, 5, generator=rng).argsort(-1)[:, :2].contiguous().int().to(device)
        return [normal(tokens, 64), ids, normal(tokens, 2), experts]

    def make(operation):
        caches = torch.zeros(2, 2, 1, 4, 16, device=device).unbind()
        seed, at = torch.arange(2, device=device), torch.tensor([3, 1], device=device)
        usable = (normal(200) > 0).contiguous()
        arguments = {
            rms_norm: lambda: [normal(2, 64), normal(64), EPS],
            linear: lambda: [normal(2, 64), normal(5, 64), normal(5), normal(2, 5)],
            router: lambda: [normal(2, 64), normal(8, 64), 50 * normal(8), 4],
            dequantize: lambda: [*make_packed(6, groups=4)],
            mxfp4_linear: lambda: [normal(2, 128), *make_packed(6, groups=4), normal(6)],
            "few experts": lambda: make_experts(2),
            "many experts": lambda: make_experts(9),
            attention: lambda: [normal(2, 4, 2, 16), *normal(2, 2, 2, 9, 16).unbind(), normal(4)],
            qkv_rope: lambda: [
                *(normal(2, 64), normal(64), EPS, normal(64, 64), normal(64)),
                *(normal(2, 16), normal(2, 16), *caches, at),
            ],
            unembed: lambda: [
                *(normal(2, 64), normal(64), EPS, normal(200, 64), 1.0, seed, at, usable)
            ],
        }
        return arguments[operation]()

    return make


def call(operation, arguments):
    if isinstance(operation, str):
        return expert_mlp(*arguments, **CONSTANTS)
    if operation is not qkv_rope:
        return operation(*arguments)
    caches = [cache.zero_() for cache in arguments[7:9]]  # outputs as well
    return operation(*arguments), *(cache.clone() for cache in caches)


OPERATIONS = [
    *(rms_norm, linear, router, dequantize, mxfp4_linear, "few experts", "many experts"),
    *(attention, qkv_rope, unembed),
]


@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda o: o if isinstance(o, str) else o.__name__
)
def test_views_give_the_same_bits(make_arguments, operation):
    arguments = make_arguments(operation)
    want = call(operation, arguments)
    for view in (interleave, store_by_columns):
        others = list(arguments)
        for place, argument in enumerate(arguments):
            if operation is qkv_rope and place in (7, 8):
                continue  # caches are written, and refused
            if isinstance(argument, ExpertWeights):
                parts = (view(getattr(argument, field.name)) for field in fields(argument))
                others[place] = ExpertWeights(*parts)
            elif isinstance(argument, Tensor):
                others[place] = view(argument)
                assert not others[place].is_contiguous()
        torch.testing.assert_close(call(operation, others), want, rtol=0, atol=0)


def test_padding_of_attention_may_be_a_view(rng, device):
    q, k, v = (torch.randn(2, 2, n, 16, generator=rng).to(device) for n in (1, 9, 9))
    sinks, padding = torch.zeros(2, device=device), torch.tensor([5, 9, 2, 9], device=device)
    got = attention(q, k, v, sinks, padding=padding[::2])
    want = attention(q, k, v, sinks, padding=padding[::2].contiguous())
    torch.testing.assert_close(got, want, rtol=0, atol=0)
