"""Operations with gradients, in every backend, against float64 autograd of plain products."""

from collections.abc import Callable

import pytest
import torch
from oss_kernels.autograd.attention import attention
from oss_kernels.autograd.experts import expert_mlp
from oss_kernels.autograd.packed_linear import packed_linear
from oss_kernels.autograd.swiglu import clamped_swiglu
from oss_kernels.backends import Backend, load_backend
from oss_kernels.experts import reference
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4.reference import dequantize
from torch import Tensor

EXPERTS, HIDDEN, WIDTH, SLOTS = 5, 64, 32, 2
CONSTANTS = {"alpha": 1.702, "limit": 7.0}
FIRST_HALF = torch.arange(33) < 17


@pytest.fixture(params=["reference", "cpu", "triton"])
def backend(request) -> Backend:
    needed = {"cpu": "numba", "triton": "triton"}.get(request.param, "torch")
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    return load_backend(request.param)


@pytest.fixture
def place(backend, device) -> str:
    return device if backend.name == "triton" else "cpu"


def assert_close(found: Tensor, wanted: Tensor, error: float) -> None:
    assert (found.double().cpu() - wanted).abs().max() <= error * wanted.abs().max()


def attend_by_sample(q, k, v, sinks, window) -> Tensor:
    """Attention of the two halves of a row, each alone, by the definition."""
    parts = []
    for some in (FIRST_HALF, ~FIRST_HALF):
        slot = torch.arange(int(some.sum()))
        own, held, values = q[:, :, some], k[:, :, some], v[:, :, some]
        held, values = (x.repeat_interleave(2, dim=1) for x in (held, values))
        back = slot[:, None] - slot
        scores = own @ held.mT / 4
        scores = scores.masked_fill((back < 0) | (back >= window), -torch.inf)
        column = sinks.view(1, -1, 1, 1).expand_as(scores[..., :1])
        parts.append(torch.cat((scores, column), -1).softmax(-1)[..., :-1] @ values)
    return torch.cat(parts, dim=2)


def test_attention_of_two_samples_in_a_row(rng, backend, place):
    shapes = (2, 4, 33, 16), (2, 2, 33, 16), (2, 2, 33, 16), (4,)
    leaves = [torch.randn(*shape, generator=rng).to(place).requires_grad_() for shape in shapes]
    starts = torch.where(FIRST_HALF, 0, 17)[None].to(place)  # one row for the whole batch
    dz = torch.randn(2, 4, 33, 16, generator=rng)
    z = attention(*leaves, backend=backend, window=8, starts=starts)
    found = torch.autograd.grad(z, leaves, dz.to(place))
    exact = [each.detach().double().cpu().requires_grad_() for each in leaves]
    wanted = attend_by_sample(*exact, window=8)
    assert_close(z, wanted, 1e-6)
    for own, other in zip(found, torch.autograd.grad(wanted, exact, dz.double()), strict=True):
        assert_close(own, other, 3e-6)
    # A loss of the first sample only has no gradient in the second, to the last bit.
    z = attention(*leaves, backend=backend, window=8, starts=starts)
    for own in torch.autograd.grad(z[:, :, FIRST_HALF].sum(), leaves[:3]):
        assert not own[:, :, ~FIRST_HALF].any()


def test_attention_by_finite_differences(rng):
    shapes = (1, 4, 9, 4), (1, 2, 9, 4), (1, 2, 9, 4), (4,)
    leaves = [
        torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_() for shape in shapes
    ]
    starts = torch.tensor([[0, 0, 0, 3, 3, 3, 3, 3, 9]])
    options = {"backend": load_backend("reference"), "window": 4, "starts": starts}
    torch.autograd.gradcheck(lambda *given: attention(*given, **options), leaves)


@pytest.mark.parametrize("tokens", [0, 1, 31, 33])
def test_packed_linear(rng, random_mxfp4, backend, place, tokens):
    blocks, scales = random_mxfp4(20, groups=4, low=120, high=128)
    x, bias, dy = (torch.randn(*n, generator=rng) for n in ((tokens, 128), (20,), (tokens, 20)))
    leaves = [each.to(place).requires_grad_() for each in (x, bias)]
    y = packed_linear(leaves[0], blocks.to(place), scales.to(place), leaves[1], backend=backend)
    dx, dbias = torch.autograd.grad(y, leaves, dy.to(place))
    weight = dequantize(blocks, scales, torch.float64)
    if tokens:
        assert_close(y, x.double() @ weight.T + bias, 1e-6)
        assert_close(dx, dy.double() @ weight, 1e-6)
        assert_close(dbias, dy.double().sum(0), 1e-6)
    assert (y.shape, dx.shape) == ((tokens, 20), (tokens, 128))


def make_experts(
    rng, random_mxfp4: Callable[..., tuple[Tensor, Tensor]], dtype=torch.float32
) -> ExpertWeights:
    """In float32 many gates and ups are beyond their limits. In bfloat16 none is, since a rounding
    across a limit would turn a gradient into zero."""
    low = 124 if dtype == torch.float32 else 120
    return ExpertWeights(
        *random_mxfp4(EXPERTS, 2 * WIDTH, groups=HIDDEN // 32, low=low, high=low + 3),
        torch.randn(EXPERTS, 2 * WIDTH, generator=rng).to(dtype),
        *random_mxfp4(EXPERTS, HIDDEN, groups=WIDTH // 32, low=low, high=low + 3),
        torch.randn(EXPERTS, HIDDEN, generator=rng).to(dtype),
    )


def make_lora(rng, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    """LoRA of rank 3 of each expert's matrices: (A, B)."""
    sizes = {"gate_up": (HIDDEN, 2 * WIDTH), "down": (WIDTH, HIDDEN)}
    return {
        which: (
            (torch.randn(EXPERTS, 3, columns, generator=rng) / 8).to(dtype),
            (torch.randn(EXPERTS, rows, 3, generator=rng) / 8).to(dtype),
        )
        for which, (columns, rows) in sizes.items()
    }


def run_dense(x, ids, weights, experts: ExpertWeights, lora) -> Tensor:
    """The experts by the definition: every token through every expert it chose, in float64."""
    out = torch.zeros_like(x)
    for expert in range(EXPERTS):
        a, b = (
            dequantize(
                getattr(experts, f"{which}_blocks")[expert],
                getattr(experts, f"{which}_scales")[expert],
                torch.float64,
            )
            + lora[which][1][expert] @ lora[which][0][expert]
            for which in ("gate_up", "down")
        )
        act = reference.clamped_swiglu(x @ a.T + experts.gate_up_bias[expert], **CONSTANTS)
        share = (weights * (ids == expert)).sum(1)
        out = out + share[:, None] * (act @ b.T + experts.down_bias[expert])
    return out


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 3e-6), (torch.bfloat16, 3e-2)], ids=str
)
@pytest.mark.parametrize("tokens", [1, 31])
def test_experts_with_lora(rng, random_mxfp4, backend, place, tokens, dtype, error):
    experts, lora = make_experts(rng, random_mxfp4, dtype), make_lora(rng, dtype)
    ids = torch.rand(tokens, EXPERTS - 1, generator=rng).argsort(1)[:, :SLOTS]  # the last is unused
    x, dy = (torch.randn(tokens, HIDDEN, generator=rng).to(dtype) for _ in range(2))
    weights = torch.rand(tokens, SLOTS, generator=rng)
    leaves = [each.to(place).requires_grad_() for each in (x, weights, *sum(lora.values(), ()))]
    own = {"gate_up": leaves[2:4], "down": leaves[4:]}

    def adapt(which, expert, inputs):
        first, second = own[which]
        return inputs @ first[expert].T @ second[expert].T

    moved = ExpertWeights(*(each.to(place) for each in vars(experts).values()))
    y = expert_mlp(
        leaves[0], ids.to(place), leaves[1], moved, backend=backend, adapt=adapt, **CONSTANTS
    )
    found = torch.autograd.grad(y, leaves, dy.to(place))
    exact = [each.detach().double().cpu().requires_grad_() for each in leaves]
    wanted = run_dense(exact[0], ids, exact[1], experts, {"gate_up": exact[2:4], "down": exact[4:]})
    assert y.dtype == dtype
    assert_close(y, wanted, error)
    for given, mine, other in zip(
        leaves, found, torch.autograd.grad(wanted, exact, dy.double()), strict=True
    ):
        assert mine.dtype == given.dtype
        assert_close(mine, other, error)


def test_experts_without_lora_are_the_operation(rng, random_mxfp4, backend, place):
    experts = make_experts(rng, random_mxfp4)
    ids = torch.rand(33, EXPERTS, generator=rng).argsort(1)[:, :SLOTS]
    x, weights = torch.randn(33, HIDDEN, generator=rng), torch.rand(33, SLOTS, generator=rng)
    moved = ExpertWeights(*(each.to(place) for each in vars(experts).values()))
    given = x.to(place), ids.to(place), weights.to(place), moved
    y = expert_mlp(*given, backend=backend, adapt=None, **CONSTANTS)
    wanted = reference.expert_mlp(x.double(), ids, weights.double(), experts, **CONSTANTS)
    assert_close(y, wanted, 1e-6)


def count_saved(call) -> list[Tensor]:
    """The tensors that autograd saves during a call."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return saved


def test_neither_scores_nor_weights_are_saved(rng, random_mxfp4):
    backend = load_backend("reference")
    q, k, v = (torch.randn(1, n, 300, 16, generator=rng).requires_grad_() for n in (2, 1, 1))
    saved = count_saved(lambda: attention(q, k, v, torch.zeros(2), backend=backend))
    assert max(each.numel() for each in saved) == q.numel()
    blocks, scales = random_mxfp4(20, groups=4)
    x = torch.randn(3, 128, generator=rng).requires_grad_()
    saved = count_saved(lambda: packed_linear(x, blocks, scales, backend=backend))
    assert {each.data_ptr() for each in saved} == {blocks.data_ptr(), scales.data_ptr()}
    x = torch.randn(3, 64, generator=rng).requires_grad_()
    saved = count_saved(lambda: clamped_swiglu(x, backend=backend, **CONSTANTS))
    assert [each.data_ptr() for each in saved] == [x.data_ptr()]


def test_a_second_derivative_is_refused_in_one_sentence(random_mxfp4):
    backend = load_backend("reference")
    blocks, scales = random_mxfp4(20, groups=2)
    x, heads = torch.ones(3, 64, requires_grad=True), torch.ones(1, 2, 3, 16, requires_grad=True)
    results = (
        (packed_linear(x, blocks, scales, backend=backend), x),
        (clamped_swiglu(x, backend=backend, **CONSTANTS), x),
        (attention(heads, heads, heads, torch.zeros(2), backend=backend), heads),
    )
    for result, leaf in results:
        with pytest.raises(
            ValueError, match="no second derivatives; call backward without"
        ) as said:
            torch.autograd.grad(result.sum(), leaf, create_graph=True)
        assert "\n" not in str(said.value)
