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
