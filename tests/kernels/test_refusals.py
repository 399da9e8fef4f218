"""Wrong sizes or types, and inputs that need gradients, are refused in a sentence before memory is
read.

A kernel that accepted them would read outside its tensors and crash or return arbitrary numbers.
"""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from oss_kernels.experts.weights import ExpertWeights

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")

BYTE, INT = torch.uint8, torch.int32
EPS, CONSTANTS = 1e-5, {"alpha": 1.702, "limit": 7.0}


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


def make_packed(*rows, groups):
    return {
        "blocks": ones(*rows, groups, 16, dtype=BYTE),
        "scales": ones(*rows, groups, dtype=BYTE),
    }


def experts() -> ExpertWeights:
    up, down = make_packed(4, 320, groups=5), make_packed(4, 160, groups=5)
    return ExpertWeights(
        *(up["blocks"], up["scales"], ones(4, 320)),
        *(down["blocks"], down["scales"], ones(4, 160)),
    )


def valid_arguments(operation: str, tokens: int = 1) -> dict:
    """Arguments that are correct."""
    x, heads = ones(tokens, 128), ones(tokens, 16)
    every = {
        "linear": {"x": x, "weight": ones(5, 128), "bias": ones(5), "residual": ones(tokens, 5)},
        "mxfp4_linear": {"x": ones(tokens, 256), **make_packed(4, groups=8), "bias": ones(4)},
        "expert_mlp": {
            "x": ones(tokens, 160),
            "ids": torch.tensor([[3, 1]] * tokens, dtype=INT),
            "weights": ones(tokens, 2),
            "experts": experts(),
            **CONSTANTS,
        },
        "rms_norm": {"x": x, "scale": ones(128), "eps": EPS},
        "router": {"x": x, "weight": ones(5, 128), "bias": ones(5), "slots": 2},
        "dequantize": make_packed(4, groups=8),
        "mxfp4_linear_backward": {"dy": ones(tokens, 4), **make_packed(4, groups=8)},
        "swiglu_backward": {"gate_up": ones(tokens, 64), "dact": ones(tokens, 32), **CONSTANTS},
        "attention_backward": {
            **{name: ones(2, 4, tokens, 16) for name in ("q", "z", "dz")},
            **{name: ones(2, 2, tokens, 16) for name in ("k", "v")},
            "sinks": ones(4),
            "lse": ones(2, 4, tokens),
        },
        "attention": {
            "q": ones(2, 4, 1, 16),
            "k": ones(2, 2, 9, 16),
            "v": ones(2, 2, 9, 16),
            "sinks": ones(4),
            "padding": torch.tensor([0, 3]),
        },
        "qkv_rope": {
            "x": x,
            "norm_scale": ones(128),
            "eps": EPS,
            "weight": ones(64, 128),
            "bias": ones(64),
            "cos": heads,
            "sin": heads,
            "keys": ones(tokens, 1, 5, 16),
            "values": ones(tokens, 1, 5, 16),
            "at": torch.tensor(0),
        },
        "unembed": {
            "x": x,
            "norm_scale": ones(128),
            "eps": EPS,
            "weight": ones(70, 128),
            "temperature": 0.0,
            "seed": torch.arange(tokens),
            "at": torch.tensor(3),
            "usable": ones(70, dtype=torch.bool),
        },
    }
    return every[operation]


CPU = {
    "linear": "linear.cpu",
    "mxfp4_linear": "mxfp4_linear.cpu",
    "expert_mlp": "experts.cpu",
    "mxfp4_linear_backward": "mxfp4_linear_backward.cpu",
    "swiglu_backward": "swiglu_backward.cpu",
}
TRITON = {
    "linear": "linear.kernel",
    "mxfp4_linear": "mxfp4_linear.kernel",
    "expert_mlp": "experts.kernel",
    "rms_norm": "rms_norm.kernel",
    "router": "router.kernel",
    "dequantize": "mxfp4.kernel",
    "attention": "attention.kernel",
    "mxfp4_linear_backward": "mxfp4_linear_backward.kernel",
    "swiglu_backward": "swiglu_backward.kernel",
    "attention_backward": "attention_backward.kernel",
    "qkv_rope": "qkv_rope.kernel",
    "unembed": "unembed.kernel",
}


def run(operation: str, module: str, device: str, arguments: dict):
    def move(value):
        if isinstance(value, ExpertWeights):
            return replace(value, **{name: part.to(device) for name, part in vars(value).items()})
        return value.to(device) if isinstance(value, torch.Tensor) else value

    function = getattr(import_module(f"oss_kernels.{module}"), operation)
    return function(**{name: move(value) for name, value in arguments.items()})


# One wrong argument each, in both backends if both have the operation.
WRONG = {
    "linear": [
        ("x", ones(1, 64)),
        ("x", ones(128)),
        ("weight", ones(5, 64)),
        ("weight", ones(5, 256)),
        ("weight", ones(5, 128, dtype=torch.bfloat16)),
        ("bias", ones(3)),
        ("bias", ones(5, dtype=torch.bfloat16)),
        ("residual", ones(1, 4)),
    ],
    "mxfp4_linear": [
        ("x", ones(1, 128)),
        ("x", ones(1, 512)),
        ("x", ones(256)),
        ("blocks", ones(2, 8, 16, dtype=BYTE)),
        ("blocks", ones(4, 8, 16, dtype=torch.int8)),
        ("scales", ones(4, 8, dtype=INT)),
        ("scales", ones(2, 8, dtype=BYTE)),
        ("bias", ones(2)),
        ("bias", ones(4, dtype=torch.int64)),
    ],
    "expert_mlp": [
        ("x", ones(3, 160)),
        ("x", ones(1, 320)),
        ("ids", torch.zeros(6, 2, dtype=INT)),
        ("ids", ones(1, 2)),
        ("weights", ones(3, 2)),
        ("weights", ones(1, 1)),
    ],
    "rms_norm": [("scale", ones(64)), ("x", ones(1, 128, dtype=torch.float64))],
    "router": [
        ("weight", ones(5, 64)),
        ("weight", ones(5, 128, dtype=torch.bfloat16)),
        ("bias", ones(4)),
        ("slots", 6),
    ],
    "dequantize": [
        ("blocks", ones(2, 8, 16, dtype=BYTE)),
        ("blocks", ones(4, 8, 8, dtype=BYTE)),
        ("scales", ones(4, 8, dtype=INT)),
    ],
    "attention": [
        ("k", ones(2, 2, 9, 8)),
        ("k", ones(1, 2, 9, 16)),  # all rows may share k, but then they must also share v
        ("k", ones(3, 2, 9, 16)),
        ("v", ones(2, 2, 8, 16)),
        ("sinks", ones(3)),
        ("padding", torch.tensor([0])),
        ("padding", ones(2)),
        ("starts", torch.zeros(2, 2, dtype=INT)),
        ("starts", torch.zeros(3, 1, dtype=INT)),
        ("starts", torch.zeros(1, dtype=INT)),
        ("starts", ones(2, 1)),
        ("q", ones(2, 4, 1, 16, dtype=torch.float16)),
        ("q", ones(2, 4, 1, 16, dtype=torch.float64)),
    ],
    "mxfp4_linear_backward": [
        ("dy", ones(1, 5)),
        ("dy", ones(4)),
        ("dy", ones(1, 4, dtype=torch.float16)),
        ("blocks", ones(2, 8, 16, dtype=BYTE)),
        ("scales", ones(4, 8, dtype=INT)),
    ],
    "swiglu_backward": [
        ("gate_up", ones(1, 32)),
        ("gate_up", ones(2, 64)),
        ("gate_up", ones(1, 64, dtype=torch.float64)),
        ("dact", ones(1, 64)),
        ("dact", ones(1, 32, dtype=torch.bfloat16)),
    ],
    "attention_backward": [
        ("q", ones(2, 4, 2, 16)),
        ("k", ones(1, 2, 1, 16)),
        ("v", ones(2, 2, 2, 16)),
        ("z", ones(2, 4, 1, 32)),
        ("dz", ones(2, 2, 1, 16)),
        ("dz", ones(2, 4, 1, 16, dtype=torch.bfloat16)),
        ("lse", ones(2, 4)),
        ("sinks", ones(2)),
        ("starts", ones(2, 1)),
    ],
    "qkv_rope": [
        ("norm_scale", ones(64)),
        ("weight", ones(64, 64)),
        ("weight", ones(32, 128)),
        ("bias", ones(48)),
        ("cos", ones(1, 8)),
        ("sin", ones(2, 16)),
        ("keys", ones(2, 1, 5, 16)),
        ("values", ones(1, 1, 4, 16)),
        ("at", torch.tensor([0, 1])),
        ("at", torch.tensor(0.0)),
    ],
    "unembed": [
        ("norm_scale", ones(64)),
        ("weight", ones(70, 64)),
        ("weight", ones(70, 128, dtype=torch.float16)),
        ("seed", torch.arange(3)),
        ("at", torch.tensor([0, 1])),
        ("usable", ones(64, dtype=torch.bool)),
        ("usable", ones(70)),
    ],
}
EVERY = [("cpu", *pair) for pair in CPU.items()] + [("triton", *pair) for pair in TRITON.items()]
CASES = [
    pytest.param(place, operation, module, name, wrong, id=f"{place} {operation} {name} {n}")
    for place, operation, module in EVERY
    for n, (name, wrong) in enumerate(WRONG[operation])
]


@pytest.mark.parametrize(("place", "operation", "module"), EVERY)
def test_the_unchanged_arguments_are_accepted(device, place, operation, module):
    run(operation, module, "cpu" if place == "cpu" else device, valid_arguments(operation))


@pytest.mark.parametrize(("place", "operation", "module", "name", "wrong"), CASES)
def test_an_argument_that_does_not_fit_is_refused(device, place, operation, module, name, wrong):
    where = "cpu" if place == "cpu" else device
    with pytest.raises(ValueError, match=r"must be") as refused:
        run(operation, module, where, valid_arguments(operation) | {name: wrong})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tokens", "dtype"), [(1, torch.float32), (200, torch.float32), (1, torch.float64)]
)
@pytest.mark.parametrize("wrong", [-1, 4, 10**6])
def test_ids_outside_the_experts_are_refused(tokens, dtype, wrong):
    """In one call, one by one, and by the reference."""
    arguments = valid_arguments("expert_mlp", tokens)
    arguments["x"] = arguments["x"].to(dtype)
    arguments["ids"][0, 1] = wrong
    with pytest.raises(ValueError, match=r"ids are from .* must be from 0 to 3"):
        run("expert_mlp", "experts.cpu", "cpu", arguments)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gate_up_blocks", ones(4, 320, 4, 16, dtype=BYTE)),
        ("gate_up_scales", ones(4, 320, 4, dtype=BYTE)),
        ("gate_up_bias", ones(4, 160)),
        ("down_blocks", ones(4, 100, 5, 16, dtype=BYTE)),
        ("down_scales", ones(4, 160, 5, dtype=INT)),
        ("down_bias", ones(3, 160)),
        ("down_bias", ones(4, 160, dtype=torch.float16)),
    ],
)
def test_weights_of_experts_that_do_not_fit_each_other_are_refused(name, wrong):
    with pytest.raises(ValueError, match=r"must be"):
        replace(experts(), **{name: wrong})


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize(
    ("place", "operation", "module"), [each for each in EVERY if each[1] != "dequantize"]
)
def test_a_request_for_gradients_is_refused_instead_of_ignored(
    device, place, operation, module, tokens
):
    arguments = valid_arguments(operation, tokens)
    first = next(iter(arguments))
    arguments[first].requires_grad_()
    where = "cpu" if place == "cpu" else device
    with pytest.raises(ValueError, match="no gradients"):
        run(operation, module, where, arguments)
    if place == "cpu":
        with torch.no_grad():
            assert not run(operation, module, where, arguments).requires_grad
