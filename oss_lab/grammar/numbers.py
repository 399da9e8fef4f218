"""Numbers in a JSON schema: the multiples that are too large, and the bounds that need care.

In llguidance 1.9.1 an exclusive bound that is a whole number is itself allowed if the other bound
is less than 1 away: "0" fits `exclusiveMinimum: 0, maximum: 0.5`. Such a bound is moved inwards by
STEP, so every number that is allowed is valid, and the numbers between are lost.
"""

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeGuard

STEP = Decimal("0.000001")
DATA = ("const", "enum", "default", "examples")  # keywords with values instead of schemas
_SIDES = (
    ("exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1),
    ("exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1),
)


def find_common_multiple(schema: Any) -> int:
    """The least common multiple of all `multipleOf`, in units of their last decimal digit.

    The automaton that tests a multiple has one state for each unit.
    """
    numbers = list(_find_numbers(schema, ("multipleOf",)))
    digits = max((-int(each.as_tuple().exponent) for each in numbers), default=0)
    return math.lcm(*(abs(int(each.scaleb(max(0, digits)))) for each in numbers))


def move_exclusive_bounds(schema: Any) -> Any:
    """The same schema without the exclusive bounds that would be allowed themselves."""
    whole = {
        exclusive: {
            bound
            for bound in _find_numbers(schema, (exclusive,))
            if bound == int(bound)
            and any(0 < (other - bound) * sign < 1 for other in _find_numbers(schema, others))
        }
        for exclusive, _, others, sign in _SIDES
    }

    def move(part: Any) -> Any:
        if isinstance(part, list | tuple):
            return [move(each) for each in part]
        if not isinstance(part, Mapping):
            return part
        moved = {key: each if key in DATA else move(each) for key, each in part.items()}
        for exclusive, inclusive, _, sign in _SIDES:
            bound, other = moved.get(exclusive), moved.get(inclusive)
            if _is_number(bound) and bound in whole[exclusive]:
                del moved[exclusive]
                closest = [float(Decimal(bound) + sign * STEP)]
                closest += [float(other)] if _is_number(other) else []
                moved[inclusive] = max(closest) if sign > 0 else min(closest)
        return moved

    return move(schema) if any(whole.values()) else schema


def _find_numbers(value: Any, keys: tuple[str, ...]) -> Iterator[Decimal]:
    """The finite numbers of these keywords, anywhere in a schema."""
    for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
        if key in keys and _is_number(each):
            yield Decimal(str(each))
        elif isinstance(each, Mapping | list | tuple) and key not in DATA:
            yield from _find_numbers(each, keys)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
