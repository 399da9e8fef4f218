"""Sampling settings, and the random numbers of each row."""

import hashlib
import math
import operator
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oss_lab.errors import LabError

LARGEST_SEED = 2**63 - 1


def _to_integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == torch.bool:
        raise TypeError
    return operator.index(value)


def _to_number(value: Any) -> float:
    if isinstance(value, str | bytes | bool | np.bool_):
        raise TypeError
    number = float(value)
    return value if isinstance(value, int | float) else number


# For each field: its conversion to a number, the allowed range, and that range in words.
_FIELDS = {
    "temperature": (_to_number, lambda value: 0 <= value < math.inf, "0 or more"),
    "top_k": (_to_integer, lambda value: value >= 1, "1 or more"),
    "top_p": (_to_number, lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "min_p": (_to_number, lambda value: 0 <= value <= 1, "from 0 to 1"),
    "seed": (_to_integer, lambda value: 0 <= value <= LARGEST_SEED, "0 to 2^63-1"),
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled.

    The filters apply in the order of the fields, each to the tokens that the previous one kept.

    Attributes:
        temperature: 0 always takes the most likely token; 1 samples from the model's distribution.
        top_k: keep the k most likely tokens.
        top_p: keep the fewest most likely tokens that together reach this probability.
        min_p: keep tokens with at least this fraction of the most likely token's probability.
        seed: determines the random numbers, together with the row's number; None is random.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, (convert, fits, bounds) in _FIELDS.items():
            value = getattr(self, name)
            if value is None and name in ("top_k", "seed"):
                continue
            try:
                plain = convert(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):
                kind = "a whole number" if convert is _to_integer else "a number"
                raise LabError(f"{name} is {value!r}; it must be {kind}, {bounds}") from None
            if not fits(plain):
                raise LabError(f"{name} is {value}; it must be {bounds}")
            object.__setattr__(self, name, plain)


GREEDY = Sampling(temperature=0.0)


class RandomStream:
    """The random numbers of one row; every pair of seed and row gives a different stream.

    PCG64 uses all 128 bits of its key. A `torch.Generator` on a CPU uses only the lower 32 bits of
    its seed, so the hashed seeds of 100,000 rows would be likely to collide.
    """

    def __init__(self, seed: int | None, row: int) -> None:
        if seed is None:
            key = secrets.token_bytes(16)
        else:
            # Both have a fixed width, so different pairs give different bytes.
            pair = seed.to_bytes(8, "little") + row.to_bytes(8, "little")
            key = hashlib.blake2b(pair, digest_size=16).digest()
        self._generator = np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))

    def uniform(self) -> float:
        """Draw the next random number, from 0 up to but not including 1."""
        return self._generator.random()

    @property
    def state(self) -> Mapping[str, Any]:
        """The position in the stream; set it to go back there."""
        return self._generator.bit_generator.state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._generator.bit_generator.state = state
