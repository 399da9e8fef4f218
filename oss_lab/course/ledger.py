"""The ledger: numbers in the lessons' prose that no cell of the lesson prints.

A number in a lesson is bound to a check in one of three ways: a compared cell prints it, so nbval
recomputes it; it is a published fact of a model's configuration, listed by `list_facts`; or it is a
claim here, which a test recomputes. `tests/lab/test_claims.py` fails for a number that has none,
and for a claim that differs from the prose.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from oss_lab.config import MODELS
from oss_lab.model.rope import ramp_limits, yarn_concentration


@dataclass(frozen=True)
class Claim:
    """A passage of a lesson, and the function that writes it from what it measures.

    Attributes:
        lesson: the notebook's name, such as "04_attention".
        passage: the words in the prose, with the number in them.
        compute: returns the passage, with the number computed.
    """

    lesson: str
    passage: str
    compute: Callable[[], str]


CLAIMS: tuple[Claim, ...] = ()


def list_facts() -> Iterator[str]:
    """The numbers of the three models' configurations, as prose writes them."""
    yield f"{2 * math.pi:.2f}"
    for config in MODELS.values():
        values = [getattr(config, field.name) for field in fields(config)]
        numbers = [each for each in values if isinstance(each, int | float)]
        numbers += [
            config.initial_context_length * config.rope_scaling_factor,
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
            config.num_attention_heads // config.num_key_value_heads,
            config.head_dim // 2,
            2 * config.intermediate_size,
            round(yarn_concentration(config.rope_scaling_factor), 2),
            *(round(limit, 2) for limit in ramp_limits(config)),
        ]
        yield from (f"{number:,.12g}" for number in numbers)
