"""Kernels without a GPU run in Triton's interpreter, which has to be asked for before any import.

With a CUDA device the same tests run on it. The compile gate needs a process of its own: under the
interpreter nothing compiles.
"""

import os

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
    """The relative error of one store. Devices round to the nearest bfloat16, the interpreter
    cuts float32's lower half off."""
    return {torch.float32: 2**-24, torch.bfloat16: 2**-8 if ON_DEVICE else 2**-7}


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    """Fresh numbers for each test, the same in every run of it."""
    seed = sum(request.node.name.encode())
    return torch.Generator().manual_seed(seed)
