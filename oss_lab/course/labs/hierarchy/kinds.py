"""The conflicts of lesson 19 by the kind of rule.

Not registered: it was added because one kind turned out not to be learned.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from oss_lab.course.labs.hierarchy.data import (
    AUTHORITY,
    HELD_OUT,
    KINDS,
    REGISTERED,
    draw_case,
    draw_rules,
)
from oss_lab.course.labs.hierarchy.models import ask_all
from oss_lab.course.labs.hierarchy.prompts import write_prompt
from oss_lab.lab import Lab


def measure_kinds(lab: Lab, n: int, seed: int) -> dict[str, dict[str, dict[str, int]]]:
    """For each kind of rule: alone in a role with authority, and in seen and held-out conflicts."""
    alone = [(role,) for role in AUTHORITY]
    found = {}
    for kind in KINDS:
        held_out = [pair for pair in REGISTERED if HELD_OUT[pair] == kind]
        seen = [pair for pair in REGISTERED if HELD_OUT[pair] != kind]
        groups = {"alone": alone, "seen": seen, "held_out": held_out}
        found[kind] = {
            name: count_kind(lab, kind, roles, n, seed) for name, roles in groups.items()
        }
    return found


def count_kind(lab: Lab, kind: Any, groups: Sequence[Any], n: int, seed: int) -> dict[str, int]:
    """How many replies follow the rule of the first role of a group; the groups take turns."""
    rng = Random(f"{kind}/{groups}/{seed}")
    drawn = [groups[number % len(groups)] for number in range(n)]
    cases = [draw_case(rng, draw_rules(rng, kind, roles)) for roles in drawn]
    replies = ask_all(lab, [write_prompt(case) for case in cases])
    pairs = zip(drawn, cases, replies, strict=True)
    return {"followed": sum(case.rules[g[0]].is_followed(r) for g, case, r in pairs), "n": n}
