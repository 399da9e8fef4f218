"""Norm, logits and sampling against float64, and the samples against the distribution."""

from typing import Any

import pytest
import torch
from oss_kernels.unembed import reference

from oss_lab.model.norm import RMSNorm

triton = pytest.importorskip("triton", reason="triton is not installed")
from oss_kernels.unembed import draw, kernel  # noqa: E402

tl = triton.language

EPS = 1e-5
SUM = 32 * 2**-24  # error of a logit's float32 sum, relative to the sum of its terms' magnitudes
NOISE = 3e-5  # error of Gumbel noise: a device's logarithm may err by 2^-22, which is 2^-16 of E


def make(rng, device, dtype, tokens, vocab, hidden):
    x = torch.randn(tokens, hidden, generator=rng).to(device, dtype)
    scale = torch.rand(hidden, generator=rng).to(device, dtype)
    weight = (torch.randn(vocab, hidden, generator=rng) / hidden**0.5 * 4).to(device, dtype)
    seed = torch.randint(0, 2**62, (tokens,), generator=rng).to(device)
    at = torch.randint(0, 2**31 - 1, (tokens,), generator=rng, dtype=torch.int32).to(device)
    return x, scale, weight, seed, at


def logits_in_float64(x, scale, weight):
    """The logits by definition, and the sums of the magnitudes of their terms."""
    wide = x.double()
    normed = wide / (wide.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * scale.double()
    terms = normed[:, None, :] * weight.double()
    return terms.sum(-1), terms.abs().sum(-1)


def tolerance(dtype, device) -> float:
    """How far a logit may be off, relative to the sum of magnitudes. Matrix instructions take
    bfloat16, so x times scale is rounded to it; in the interpreter they are float32."""
    return SUM + (2**-8 if dtype == torch.bfloat16 and device == "cuda" else 0.0)


# Every size and every temperature with both dtypes; the other combinations are slow tests.
SIZES = [(1, 640, 96), (3, 129, 33), (17, 65, 130), (2, 1, 16)]
FLOAT, BFLOAT = torch.float32, torch.bfloat16
QUICK = [
    (*SIZES[0], 0.7, FLOAT), (*SIZES[0], 0.0, BFLOAT),
    (*SIZES[1], 1.0, FLOAT), (*SIZES[1], 0.7, BFLOAT),
    (*SIZES[2], 0.0, FLOAT), (*SIZES[2], 1.0, BFLOAT),
    (*SIZES[3], 0.7, FLOAT), (*SIZES[3], 0.0, BFLOAT),
]  # fmt: skip
REST = {(*size, t, dtype) for size in SIZES for t in (0.0, 0.7, 1.0) for dtype in (FLOAT, BFLOAT)}
REST -= set(QUICK)


@pytest.mark.parametrize(
    ("tokens", "vocab", "hidden", "temperature", "dtype"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in sorted(REST, key=str))],
)
def test_the_kernel_computes_the_definition(rng, device, tokens, vocab, hidden, temperature, dtype):
    x, scale, weight, seed, at = make(rng, device, dtype, tokens, vocab, hidden)
    usable = torch.rand(vocab, generator=rng).to(device) < 0.9
    usable[-1] = True
    ids, logprobs = kernel.unembed(x, scale, EPS, weight, temperature, seed, at, usable)
    assert (ids.dtype, logprobs.dtype) == (torch.int64, torch.float32)
    logits, magnitude = logits_in_float64(x, scale, weight)
    scores = logits + temperature * reference.gumbel(seed, at, vocab)
    scores = scores.masked_fill(~usable, -torch.inf)
    slack = tolerance(dtype, device) * magnitude.amax(-1) + temperature * NOISE
    chosen = scores.gather(1, ids[:, None])[:, 0]
    best = scores.topk(min(2, vocab)).values
    clear = best[:, 0] - best[:, -1] > 2 * slack if vocab > 1 else slack >= 0
    assert (chosen >= best[:, 0] - 2 * slack).all()
    assert torch.equal(ids[clear], scores.argmax(-1)[clear])
    assert clear.float().mean() > 0.6  # near-ties are rare
    expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    # Twice a logit's error, and float32's digits and logarithm.
    assert ((logprobs - expected).abs() <= 2 * slack + 1e-6 * (1 + expected.abs())).all()


def test_the_tolerance_detects_a_missing_norm_scale(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 4, 70, 96)
    ones = torch.ones_like(scale)
    ids, logprobs = kernel.unembed(x, ones, EPS, weight, 0.0, seed, at)
    logits, magnitude = logits_in_float64(x, scale, weight)
    expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    assert ((logprobs - expected).abs() > 10 * SUM * magnitude.amax(-1)).all()


def test_eps_matters_for_small_activations(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 4, 70, 96)
    x *= 1e-3
    ids, logprobs = kernel.unembed(x, scale, EPS, weight, 0.0, seed, at)
    logits, magnitude = logits_in_float64(x, scale, weight)
    expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    assert ((logprobs - expected).abs() <= 2 * SUM * magnitude.amax(-1) + 1e-5).all()


def test_all_rows_may_share_one_random_number(rng, device):
    x, scale, weight, seed, _ = make(rng, device, torch.float32, 4, 200, 32)
    at = torch.tensor(3, dtype=torch.int32, device=device)
    ids, _ = kernel.unembed(x, scale, EPS, weight, 5.0, seed, at)
    assert torch.equal(ids, reference.unembed(x, scale, EPS, weight, 5.0, seed, at)[0])
    rows = kernel.unembed(x, scale, EPS, weight, 5.0, seed, at.repeat(4))
    assert torch.equal(ids, rows[0])


@pytest.mark.parametrize("twins", [(5, 40), (3, 64), (70, 100, 129)])
def test_of_equal_logits_the_lowest_id_is_chosen(rng, device, twins):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 2, 130, 32)
    weight[list(twins)] = 3 * x[0] * scale  # the largest logit for row 0
    ids, _ = kernel.unembed(x, scale, EPS, weight, 0.0, seed, at)
    assert ids[0] == min(twins)


def test_unusable_ids_are_not_chosen_but_count_in_the_probability(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 3, 130, 32)
    free, _ = kernel.unembed(x, scale, EPS, weight, 1.0, seed, at)
    usable = torch.ones(130, dtype=torch.bool, device=device)
    usable[free] = False
    ids, logprobs = kernel.unembed(x, scale, EPS, weight, 1.0, seed, at, usable)
    assert not set(ids.tolist()) & set(free.tolist())
    wanted = reference.unembed(x, scale, EPS, weight, 1.0, seed, at, usable)
    assert torch.equal(ids, wanted[0])
    torch.testing.assert_close(logprobs, wanted[1], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
@pytest.mark.parametrize("operation", [kernel.unembed, reference.unembed])
def test_nan_logits_are_not_chosen(rng, device, operation):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 2, 70, 16)
    weight[:69] = float("nan")
    ids, logprobs = operation(x, scale, EPS, weight, 1.0, seed, at)
    assert ids.tolist() == [69, 69]
    assert logprobs.isnan().all()
    weight[69] = float("nan")
    ids, _ = operation(x, scale, EPS, weight, 1.0, seed, at)
    assert ids.tolist() == [0, 0]  # always an id in the vocabulary


def test_a_row_does_not_depend_on_its_neighbors(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 18, 70, 32)
    ids, logprobs = kernel.unembed(x, scale, EPS, weight, 1.0, seed, at)
    for row in (0, 17):
        part = slice(row, row + 1)
        alone = kernel.unembed(x[part], scale, EPS, weight, 1.0, seed[part], at[part])
        assert torch.equal(alone[0], ids[part])
        assert torch.equal(alone[1], logprobs[part])


def test_poisoned_outputs_are_written_and_nothing_else(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 3, 130, 32)
    ids = torch.full((5,), -7, device=device)
    logprobs = torch.full((5,), float("nan"), device=device)
    temperatures = torch.ones(3, device=device)
    launches = kernel.launch(
        x, scale, EPS, weight, temperatures, seed, at, None, ids[1:4], logprobs[1:4]
    )
    given: dict[str, Any] = launches[0].arguments
    partial = [given[name] for name in ("scores", "logits", "sums")]
    for each in partial:
        each.fill_(float("nan"))
    given["ids"].fill_(-7)
    for each in launches:
        each()
    assert all(each.isfinite().all() for each in partial)
    assert ((ids[1:4] >= 0) & (ids[1:4] < 130)).all()
    assert logprobs[1:4].isfinite().all()
    assert ids[[0, 4]].tolist() == [-7, -7]
    assert logprobs[[0, 4]].isnan().all()


@pytest.mark.parametrize("vocab", [64, 130, 200])
def test_alternatives_are_the_most_likely_ids_also_of_equal_logits(rng, device, vocab):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 2, vocab, 32)
    weight[[3, 70 % vocab]] = weight[5].clone()  # equal logits, in one block and in two
    x[0] = weight[5] * scale.sign()  # token 0's largest
    logits = torch.full((2, vocab), float("nan"), device=device)
    ids = torch.full((2, 20), -7, device=device)
    logprobs = torch.full((2, 20), float("nan"), device=device)
    drawn = torch.empty(2, dtype=torch.int64, device=device), torch.empty(2, device=device)
    temperatures = torch.tensor([0.0, 1.0], device=device)
    for launch in kernel.launch(
        x, scale, EPS, weight, temperatures, seed, at, None, *drawn, logits, (ids, logprobs)
    ):
        launch()
    exact, size = logits_in_float64(x, scale, weight)
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5 * float(size.max()))
    order = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(ids, order.indices[:, :20])
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(1, ids), rtol=0, atol=1e-4)
    assert ids[0, :3].tolist() == sorted({3, 5, 70 % vocab})
    assert drawn[0][0] == ids[0, 0]  # temperature 0


def test_no_token_gives_no_draw(rng, device):
    x, scale, weight, seed, at = make(rng, device, torch.float32, 0, 70, 32)
    ids, logprobs = kernel.unembed(x, scale, EPS, weight, 1.0, seed, at)
    assert ids.shape == logprobs.shape == (0,)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (reference.LOW,) * 4,
            (reference.LOW,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_published_test_vectors(counter, key, words):
    """Random123's kat_vectors for philox4x32-10."""
    counter, key = ([torch.tensor([word]) for word in each] for each in (counter, key))
    assert tuple(int(word) for word in reference.philox(counter, key)) == words


kernel_gumbel = draw.gumbel  # the compiler looks up plain names only


@triton.jit
def noise(uniform, gumbel, seed, at, N: tl.constexpr):
    id = tl.arange(0, N)
    offset = (tl.load(at).to(tl.int64) << 32) | id
    tl.store(uniform + id, tl.rand(tl.load(seed), offset))
    tl.store(gumbel + id, kernel_gumbel(tl.load(seed), tl.load(at), id))


@pytest.mark.parametrize(
    ("seed", "at"), [(0, 0), (1, 0), (2**32 + 1, 0), (2**63 - 1, 2**31 - 1), (123, 4095)]
)
def test_the_kernels_noise_equals_the_references(device, seed, at):
    n = 4096
    seed, at = torch.tensor([seed], device=device), torch.tensor([at], device=device)
    uniform, gumbel = torch.zeros(2, n, device=device).unbind()
    noise[1,](uniform, gumbel, seed, at.int(), n)
    assert torch.equal(uniform, reference.rand(seed, at, n)[0])
    wanted = reference.gumbel(seed, at, n)[0]
    torch.testing.assert_close(gumbel.double(), wanted, rtol=0, atol=NOISE)


def test_the_noise_follows_the_gumbel_distribution_in_its_tail():
    n, rows = 2**16, 16
    seeds = torch.arange(rows) // 4
    slots = torch.arange(rows) % 4
    draws = reference.gumbel(seeds, slots, n).flatten()
    ordered = draws.sort().values
    # Kolmogorov-Smirnov: beyond 1.95 / sqrt(count) with probability 0.001.
    expected = torch.exp(-torch.exp(-ordered))
    distance = (expected - torch.arange(len(draws)) / len(draws)).abs().max()
    assert distance < 1.95 / len(draws) ** 0.5
    # The largest of 2^20 is near log(2^20) = 13.9. It exceeds 20 with probability 0.002, and stays
    # below 11.5 as rarely.
    assert 11.5 < ordered[-1] < 20
    table = draws.view(rows, n)
    same = (table[:, None] == table).float().mean(-1) - torch.eye(rows)
    assert same.max() < 0.001  # no seed and no slot repeats another's


def chi_square(counts, probabilities) -> float:
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(("vary", "temperature"), [("seed", 1.0), ("slot", 0.5)])
def test_draws_follow_the_softmax(rng, device, vary, temperature):
    """Eight ids, 1,024 draws; chi-squared exceeds 24.3 with probability 0.001 (7 degrees of
    freedom)."""
    draws, vocab, hidden = 1024, 8, 16
    x, scale, weight, _, _ = make(rng, device, torch.float32, 1, vocab, hidden)
    weight /= 3
    count = torch.arange(draws, device=device)
    seed = count if vary == "seed" else torch.full_like(count, 7)
    at = count.int() if vary == "slot" else torch.tensor(3, device=device).expand(draws)
    x = x.expand(draws, hidden).contiguous()
    out_ids, out_logprobs = torch.empty(draws), torch.empty(draws)
    # The vocabulary fits one block, so the best id of the block is the draw.
    temperatures = torch.full((draws,), temperature, device=device)
    first, _ = kernel.launch(
        x, scale, EPS, weight, temperatures, seed, at, None, out_ids, out_logprobs
    )
    first()
    given: dict[str, Any] = first.arguments
    counts = torch.bincount(given["ids"].flatten().cpu(), minlength=vocab).double()
    logits = logits_in_float64(x[:1], scale, weight)[0][0].cpu()
    assert chi_square(counts, (logits / temperature).softmax(-1)) < 24.3
    # They do not follow the distribution of another temperature.
    assert chi_square(counts, (logits / temperature / 2).softmax(-1)) > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_is_the_models_norm_and_unembedding(rng, dtype):
    norm, unembedding = RMSNorm(96, EPS), torch.nn.Linear(96, 640, bias=False)
    norm.scale.data = torch.randn(96, generator=rng)
    norm, unembedding = norm.to(dtype), unembedding.to(dtype)
    x = torch.randn(5, 96, generator=rng).to(dtype)
    seed, at = torch.zeros(5, dtype=torch.int64), torch.tensor(0)
    with torch.no_grad():
        logprobs = unembedding(norm(x)).float().log_softmax(-1)
        ids, ours = reference.unembed(x, norm.scale, EPS, unembedding.weight, 0.0, seed, at)
    assert torch.equal(ids, logprobs.argmax(-1))
    assert torch.equal(ours, logprobs.amax(-1))


def test_the_reference_is_the_definition_in_float64(rng):
    x, scale, weight, seed, at = make(rng, "cpu", torch.float64, 3, 100, 40)
    logits, _ = logits_in_float64(x, scale, weight)
    for temperature in (0.0, 0.8):
        ids, logprobs = reference.unembed(x, scale, EPS, weight, temperature, seed, at)
        scores = logits + temperature * reference.gumbel(seed, at, 100)
        assert torch.equal(ids, scores.argmax(-1))
        wanted = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
        torch.testing.assert_close(logprobs, wanted, rtol=1e-12, atol=1e-12)
