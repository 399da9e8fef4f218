"""Without a GPU, kernels run in Triton's interpreter, which must be enabled before any import.

With a CUDA device the same tests run on the device. The compile gate needs a separate process,
because nothing compiles under the interpreter.
"""

import os
from collections.abc import Callable, Iterator

import pytest
import torch

ON_DEVICE = torch.cuda.is_available()
if not ON_DEVICE:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if ON_DEVICE else "cpu"


@pytest.fixture(scope="session")
def rounding() -> dict[torch.dtype, float]:
    """The relative error of one store, by dtype. Devices round to the nearest bfloat16; the
    interpreter truncates the lower half of the float32."""
    return {torch.float32: 2**-24, torch.bfloat16: 2**-8 if ON_DEVICE else 2**-7}


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    """A generator that starts from the same seed in each test."""
    seed = sum(request.node.name.encode())
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def random_mxfp4(rng: torch.Generator) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`random_mxfp4(*rows, groups=g)`: blocks [rows groups 16] with random codes, and scales [rows
    groups] from `low` to `high` - 1."""

    def make(*rows: int, groups: int, low: int = 110, high: int = 140):
        blocks = torch.randint(0, 256, (*rows, groups, 16), dtype=torch.uint8, generator=rng)
        return blocks, torch.randint(low, high, (*rows, groups), dtype=torch.uint8, generator=rng)

    return make


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def tiny_model(rng: torch.Generator, device: str):
    """A model with random weights, whose logits differ enough for a clear argmax.

    As small as the kernels allow, because Triton's interpreter takes milliseconds per program.
    """
    from oss_lab.config import ModelConfig
    from oss_lab.model.transformer import Transformer

    config = ModelConfig(
        num_hidden_layers=2,
        num_experts=5,
        experts_per_token=2,
        vocab_size=70,
        hidden_size=32,
        intermediate_size=32,
        head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=5,
        initial_context_length=32,
    )
    with torch.device("meta"):
        model = Transformer(config)
    weights = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.uint8:
            low, high = (0, 256) if name.endswith("blocks") else (122, 126)
            weights[name] = torch.randint(low, high, tensor.shape, generator=rng).byte()
        else:
            weights[name] = torch.randn(tensor.shape, generator=rng) * 0.3 + ("norm" in name)
    model.load_state_dict(weights, assign=True)
    return model.to(device).eval().requires_grad_(False)
