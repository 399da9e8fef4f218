"""The final norm, the unembedding and sampling of a token in plain torch.

The id with the largest logit + T g is a sample from softmax(logits / T). Here g is Gumbel noise:
-log(E) with E from an exponential distribution (Gumbel 1954; Maddison et al., arXiv 1411.0030). So
sampling needs neither a sort nor a sum over the vocabulary, and T = 0 is the argmax.

The noise of an id depends only on the row's seed, the slot and the id. Philox4x32-10 (Salmon et
al., SC 2011) computes it from these, so the sampled id does not depend on batch or device.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_kernels.rms_norm.reference import rms_norm

LOW = 0xFFFFFFFF  # a mask for the lower 32 bits
ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
UNIFORM_STEP = 4.6566127342e-10  # the step of tl.rand, slightly less than 2^-31
SMALLEST_UNIFORM = 2.0**-32


def unembed(
    x: Float[Tensor, "token hidden"],
    norm_scale: Float[Tensor, "hidden"],
    eps: float,
    weight: Float[Tensor, "vocab hidden"],
    temperature: float,
    seed: Int[Tensor, "token"],
    at: Int[Tensor, "*token"],
    usable: Bool[Tensor, "vocab"] | None = None,
) -> tuple[Int[Tensor, "token"], Float[Tensor, "token"]]:
    """The next token's id and its log-probability, in float32 (float64 for float64 x).

    Args:
        temperature: 0 takes the most likely id; ties go to the lowest id.
        seed: the seed of each row's random numbers, int64, 0 or more.
        at: a counter that gives each sample of a row new noise, such as the token's slot in the
            cache. From 0 to 2^31 - 1, one for all rows or one per row.
        usable: True for ids that may be chosen. The returned log-probability ignores it: it is over
            the whole vocabulary, at temperature 1.
    """
    logits = F.linear(rms_norm(x, norm_scale, eps), weight)
    logits = logits.double() if x.dtype == torch.float64 else logits.float()
    scores = logits + temperature * gumbel(seed, at, len(weight)).to(logits.dtype)
    # NaN never wins against a number.
    scores = scores.masked_fill(scores.isnan(), -torch.inf)
    if usable is not None:
        scores = scores.masked_fill(~usable, -torch.inf)
    best = (scores == scores.amax(-1, keepdim=True)).int().argmax(-1)
    return best, logits.log_softmax(-1).gather(1, best[:, None])[:, 0]


def gumbel(
    seed: Int[Tensor, "token"], at: Int[Tensor, "*token"], vocab: int
) -> Float[Tensor, "token vocab"]:
    """Gumbel noise in float64: -log(E) with E = -log(1 - u).

    Small values of E decide which id wins. They come from u near 0, where floats are fine-grained.
    With E = -log(u) they would come from u near 1, where float32 has steps of 2^-24, and ids of
    lower probability would almost never be sampled.
    """
    uniform = rand(seed, at, vocab).double().clamp(min=SMALLEST_UNIFORM)
    return -torch.log(-torch.log1p(-uniform))


def rand(
    seed: Int[Tensor, "token"], at: Int[Tensor, "*token"], vocab: int
) -> Float[Tensor, "token vocab"]:
    """Uniform float32 numbers in [0, 1): tl.rand(seed, at * 2^32 + id) for every id."""
    ids = torch.arange(vocab, device=seed.device).expand(len(seed), vocab)
    key, zero = seed.long()[:, None], torch.zeros_like(ids)
    slots = at.long().expand(len(seed))[:, None].expand_as(ids)
    words = philox((ids, slots, zero, zero), (key & LOW, key >> 32 & LOW))[0]
    signed = torch.where(words >= 2**31, words - 2**32, words)
    return torch.where(signed < 0, ~signed, signed).float() * UNIFORM_STEP


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random 32-bit words for each counter. All words are stored in int64."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        high_0, low_0 = multiply_words(FACTORS[0], c0)
        high_1, low_1 = multiply_words(FACTORS[1], c2)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + KEY_STEPS[0] & LOW, k1 + KEY_STEPS[1] & LOW
    return c0, c1, c2, c3


def multiply_words(a: int, b: Int[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
    """The upper and lower 32-bit word of a 64-bit product. int64 uses its sign bit as bit 63."""
    full = a * b
    return full >> 32 & LOW, full & LOW
