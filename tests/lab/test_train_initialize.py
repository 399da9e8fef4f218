"""The initial weights: fixed by the seed, with heads in the first layer that look back."""

import torch

from oss_lab.config import GPT_OSS_NANO
from oss_lab.model import Transformer
from oss_lab.nano.training.initialize import initialize
from oss_lab.nano.training.quantized import RoundedExperts

FARTHEST = 3


def make_model(seed=0, config=GPT_OSS_NANO):
    model = Transformer(config, RoundedExperts)
    initialize(model, seed, FARTHEST)
    return model


def test_a_seed_decides_every_weight():
    first, same, other = (dict(make_model(seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_heads_of_the_first_layer_look_one_two_and_three_tokens_back():
    patterns = []
    model = make_model()

    def keep(point, layer, x):
        if (point, layer) == ("attn.pattern", 0):
            patterns.append(x)
        return x

    tokens = torch.randint(
        GPT_OSS_NANO.vocab_size, (4, 64), generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        model(tokens, hooks=keep)
    (pattern,) = patterns
    queries = torch.arange(32, 64)
    group = GPT_OSS_NANO.num_attention_heads // GPT_OSS_NANO.num_key_value_heads
    back = torch.stack([pattern[:, :, queries, queries - n].mean((0, 2)) for n in range(20)], 1)
    for head, shares in enumerate(back):
        nearest = head % group + 1
        if nearest <= FARTHEST:
            assert shares.argmax() == nearest
            assert shares[nearest] > 4 / 32  # four times the even share of a window


def test_every_other_bias_starts_at_zero():
    for name, parameter in make_model().named_parameters():
        if name.endswith("bias") and name != "block.0.attn.qkv.bias":
            assert not parameter.any(), name


def test_without_heads_that_look_back_every_bias_is_zero():
    model = Transformer(GPT_OSS_NANO, RoundedExperts)
    initialize(model, 0)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_with_fewer_heads_per_key_value_head_fewer_look_back(small_nano):
    model = make_model(config=small_nano)
    q, kv = small_nano.num_attention_heads, small_nano.num_key_value_heads
    heads = model.get_parameter("block.0.attn.qkv.bias").view(-1, small_nano.head_dim)
    assert q // kv < FARTHEST
    assert heads[: q + kv].any(1).all()
    assert not heads[q + kv :].any()  # v
    k = heads[q : q + kv]
    assert torch.equal(k != 0, torch.arange(small_nano.head_dim).expand_as(k) < 2)
