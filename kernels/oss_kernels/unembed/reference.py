"""The final norm, the unembedding and the choice of a token in plain torch.

A draw from softmax(logits / T) is the id with the largest logit + T g, where g is Gumbel noise,
-log(E) with E from an exponential distribution (Gumbel 1954; Maddison et al., arXiv 1411.0030). No
sort and no sum over the vocabulary are needed, and T = 0 is the argmax.

The noise of an id depends on the row's seed, the slot and the id alone: Philox4x32-10 (Salmon et
al., SC 2011) makes it from them, so that neither batch nor device changes what is drawn.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_kernels.rms_norm.reference import rms_norm

LOW = 0xFFFFFFFF  # the lower 32 bits
ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
UNIFORM_STEP = 4.6566127342e-10  # tl.rand's: a little less than 2^-31
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
        temperature: 0 takes the likeliest, of equals the lowest id.
        seed: of each row's random numbers, int64, 0 or more.
        at: which draw of the row this is, such as the slot of its token in the cache; from 0 to
            2^31 - 1, one for all rows or one each.
        usable: ids that may be chosen. The log-probability is the model's own: over the whole
            vocabulary, at temperature 1.
    """
    logits = F.linear(rms_norm(x, norm_scale, eps), weight)
    logits = logits.double() if x.dtype == torch.float64 else logits.float()
    scores = logits + temperature * gumbel(seed, at, len(weight)).to(logits.dtype)
    # Not a number is never better than a number.
    scores = scores.masked_fill(scores.isnan(), -torch.inf)
    if usable is not None:
        scores = scores.masked_fill(~usable, -torch.inf)
    best = (scores == scores.amax(-1, keepdim=True)).int().argmax(-1)
    return best, logits.log_softmax(-1).gather(1, best[:, None])[:, 0]


def gumbel(
    seed: Int[Tensor, "token"], at: Int[Tensor, "*token"], vocab: int
) -> Float[Tensor, "token vocab"]:
    """Gumbel noise in float64.

    E = -log(1 - u), whose small values decide: near 0 a float has digits to spare, near 1 it has
    not, and -log(u) would hardly ever draw an id of probability below 2^-24.
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
    """Philox4x32-10: four random 32-bit words for each counter; all words are held in int64."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        high_0, low_0 = product(FACTORS[0], c0)
        high_1, low_1 = product(FACTORS[1], c2)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + KEY_STEPS[0] & LOW, k1 + KEY_STEPS[1] & LOW
    return c0, c1, c2, c3


def product(a: int, b: Int[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
    """The upper and lower word of a 64-bit product, which int64 holds with its sign bit."""
    full = a * b
    return full >> 32 & LOW, full & LOW
