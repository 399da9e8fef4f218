"""Logits against transformers' GptOss, including its loader, with random weights.

Each model is written in both layouts. transformers reads the Hugging Face folder, dequantizes the
experts itself (exact in bfloat16), and computes in float32 with eager attention. We read both
layouts.

If a router's last chosen and first rejected expert are nearly tied, two correct implementations may
choose differently, and everything after that differs. Positions with a near-tie are counted and
left out of the comparison. If the two really chose differently, all later positions are left out
too.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO, ModelConfig
from oss_lab.model import Recorder, Transformer

LENGTHS = (1, 13, 127, 128, 129, 300, 700)  # 700 is beyond the initial context of 256
FEWER = (1, 129, 700)
TOLERANCE = 1e-4
MARGIN = 1e-4  # of router logits; two float32 implementations differ by about 1e-6
MOST_LEFT_OUT = 0.02

NANO = {
    "nano": (0, GPT_OSS_NANO),
    "wide groups, tight clamp": (
        2,
        replace(GPT_OSS_NANO, num_attention_heads=6, num_key_value_heads=1, swiglu_limit=0.75),
    ),
    "no groups, few experts": (
        3,
        replace(
            GPT_OSS_NANO,
            num_key_value_heads=8,
            num_experts=5,
            experts_per_token=2,
            sliding_window=128,
            intermediate_size=64,
        ),
    ),
    "full first, one expert a token": (
        4,
        replace(
            GPT_OSS_NANO,
            num_hidden_layers=3,
            layer_types=("full_attention", "full_attention", "sliding_attention"),
            experts_per_token=1,
            sliding_window=16,
            swiglu_alpha=1.3,
            rms_norm_eps=1e-3,
        ),
    ),
    "all sliding, a context so short that YaRN's ramp begins below zero": (
        5,
        replace(
            GPT_OSS_NANO,
            num_hidden_layers=2,
            layer_types=("sliding_attention",) * 2,
            head_dim=32,
            initial_context_length=64,
        ),
    ),
    "other RoPE constants": (
        6,
        replace(
            GPT_OSS_NANO,
            num_hidden_layers=2,
            layer_types=(),
            rope_theta=10_000.0,
            rope_scaling_factor=4.0,
            rope_ntk_alpha=2.0,
            rope_ntk_beta=8.0,
        ),
    ),
}
PUBLISHED_WIDTH = replace(
    GPT_OSS_20B,
    num_hidden_layers=1,
    layer_types=(),
    vocab_size=1000,
    initial_context_length=256,
)
# The published numbers of heads and experts, with equal hidden and intermediate sizes.
PUBLISHED_COUNTS = replace(
    PUBLISHED_WIDTH,
    num_hidden_layers=2,
    layer_types=(),
    hidden_size=96,
    intermediate_size=96,
    head_dim=16,
)


@dataclass(frozen=True)
class Pair:
    """One set of weights: their model, ours from either layout, and the tokens to run."""

    theirs: torch.nn.Module
    ours: dict[str, Transformer]
    tokens: torch.Tensor


@pytest.fixture(scope="session")
def make_pair(scaled_tensors, load_in_transformers):
    """`make_pair(folder, config, seed)`: writes random weights to `folder` and reads them with
    both."""

    @torch.inference_mode()
    def make(folder, config: ModelConfig, seed: int) -> Pair:
        tensors = scaled_tensors(config, seed)
        for layout in ("original", "huggingface"):
            write_checkpoint(folder / layout, config, tensors, layout=layout)
        theirs = load_in_transformers(folder / "huggingface")
        ours = {
            layout: load_model(open_checkpoint(folder / layout))
            for layout in ("original", "huggingface")
        }
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(config.vocab_size, (1, max(LENGTHS)), generator=generator)
        return Pair(theirs, ours, tokens)

    return make


@pytest.fixture(scope="module", params=NANO)
def nano_pair(request, tmp_path_factory, make_pair):
    seed, config = NANO[request.param]
    return make_pair(tmp_path_factory.mktemp("nano"), config, seed)


@dataclass(frozen=True)
class Comparison:
    """Differences of logits per position, and the positions that count."""

    difference: torch.Tensor
    counts: torch.Tensor
    rms: float

    @property
    def largest(self) -> float:
        return self.difference[self.counts].max().item()


@torch.inference_mode()
def compare(pair: Pair, layout: str, length: int) -> Comparison:
    tokens = pair.tokens[:, :length]
    theirs = pair.theirs(tokens, output_router_logits=True, use_cache=False)
    watch = Recorder({"moe.router_logits", "moe.expert_ids"})
    ours = pair.ours[layout](tokens, hooks=watch)[0]
    slots = pair.ours[layout].config.experts_per_token
    near_tied = torch.zeros(length, dtype=torch.bool)
    parted = near_tied.clone()
    for n, router in enumerate(theirs.router_logits):
        best = router.topk(slots + 1).values
        near_tied |= best[:, -2] - best[:, -1] < MARGIN
        chosen = router.topk(slots).indices.sort().values
        (our_ids,) = watch.seen["moe.expert_ids", n]
        parted |= (our_ids[0].sort().values != chosen).any(-1)
    assert not (
        parted & ~near_tied & (parted.cumsum(0) <= 1)
    ).any()  # only near-ties may cause different choices
    difference = (ours - theirs.logits[0]).abs().amax(-1)
    counts = ~near_tied & (parted.cumsum(0) == 0)
    return Comparison(difference, counts, theirs.logits.square().mean().sqrt().item())


def check(pair: Pair, layout: str, lengths: tuple[int, ...] = LENGTHS) -> None:
    """Check every length against the tolerance and print the figures (`pytest -rP` shows them)."""
    left_out, rms = 0, 0.0
    for length in lengths:
        found = compare(pair, layout, length)
        assert found.counts.any()
        print(f"{layout}, {length} tokens: largest difference {found.largest:.1e}")
        assert found.largest <= TOLERANCE
        left_out += int((~found.counts).sum())
        rms = found.rms
    total = sum(lengths)
    print(f"left out for near-ties: {left_out} of {total}; RMS of the logits {rms:.2f}")
    assert 0.5 < rms < 2
    assert left_out <= MOST_LEFT_OUT * total


def test_float32_logits_equal_those_of_transformers(nano_pair):
    plain = nano_pair.ours["original"].config == GPT_OSS_NANO
    check(nano_pair, "original", LENGTHS if plain else FEWER)


def test_both_layouts_give_the_same_model(nano_pair):
    """So the logits of one layout are enough for the other tests."""
    original, huggingface = (
        nano_pair.ours[layout].state_dict() for layout in ("original", "huggingface")
    )
    assert original.keys() == huggingface.keys()
    for name, tensor in original.items():
        assert torch.equal(tensor, huggingface[name]), name


@torch.inference_mode()
def test_bfloat16_is_as_close_to_float32_as_in_transformers(tmp_path, make_pair):
    """Rounding changes near-tied experts in both, so the test compares the median position."""
    pair = make_pair(tmp_path, GPT_OSS_NANO, seed=0)
    exact = pair.theirs(pair.tokens).logits
    ours = load_model(open_checkpoint(tmp_path / "original"), dtype=torch.bfloat16)(pair.tokens)
    theirs = pair.theirs.to(torch.bfloat16)(pair.tokens).logits
    assert ours.dtype == torch.bfloat16
    medians = {}
    for name, logits in (("ours", ours), ("transformers", theirs)):
        error = (logits.float() - exact).square().mean(-1)
        relative = (error.mean() / exact.square().mean()).sqrt().item()
        medians[name] = error.median().sqrt().item()
        print(f"bfloat16, {name}: relative RMS {relative:.4f}, median RMS {medians[name]:.4f}")
    assert medians["ours"] <= 1.25 * medians["transformers"]
    assert medians["ours"] <= 0.03


def test_the_published_numbers_of_heads_and_experts(tmp_path, make_pair):
    """Like the slow test below, with both kinds of layers, each a thirtieth as wide."""
    check(make_pair(tmp_path, PUBLISHED_COUNTS, seed=6), "huggingface", FEWER)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sliding_attention", "full_attention"])
def test_one_layer_at_the_width_of_20b(kind, tmp_path, make_pair):
    config = replace(PUBLISHED_WIDTH, layer_types=(kind,))
    pair = make_pair(tmp_path, config, seed=7)
    for layout in ("original", "huggingface"):
        check(pair, layout)
