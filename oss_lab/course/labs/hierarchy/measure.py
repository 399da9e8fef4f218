"""Lesson 19: which role is obeyed, before and after training on a hierarchy.

nano is fine-tuned on conversations in which the highest role wins, on the same ones with the roles
shuffled, and on ones in which role, position and heading are taken apart. What is compared is the
share of replies that follow the rule of the higher role.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from oss_lab.course.labs.hierarchy.attacks import (
    DISGUISES,
    LAYOUTS,
    write_injection,
    write_layout,
)
from oss_lab.course.labs.hierarchy.data import (
    KINDS,
    PAIRS,
    PLACES,
    REGISTERED,
    Case,
    draw_case,
    draw_rules,
    kinds_of,
)
from oss_lab.course.labs.hierarchy.kinds import measure_kinds
from oss_lab.course.labs.hierarchy.known import measure_known_rule
from oss_lab.course.labs.hierarchy.models import (
    SETTINGS,
    ask_all,
    hierarchy_examples,
    mixed_examples,
    shuffled_examples,
    train_model,
)
from oss_lab.course.labs.hierarchy.prompts import write_prompt
from oss_lab.lab import Lab, load

Counts = dict[str, int]
EXAMPLES = 1200
N = 300
TRIED = [
    "13 rules (five marks, 2 to 4 copies), each at the end of its message, 1,200 examples twice,"
    " learning rate 2e-3: the higher role won in 133 of 360 seen and 108 of 360 held-out"
    " conflicts, because the marks themselves were not learned",
    "6 rules, each at the beginning of its message, 1,200 examples twice, learning rate 3e-3,"
    " stopped after three pairs: 88 of 120 seen, 69 of 120 held out",
    "twice with full system messages, stopped for lack of time and not measured; then short"
    " system messages, and more conflicts between system, developer and user",
]


def count_conflicts(lab: Lab, pair: Any, split: Any, n: int, seed: int) -> Counts:
    """How many replies follow the rule of the higher role, of the lower one, and are right."""
    rng = Random(f"{pair}/{split}/{seed}")
    kinds = kinds_of(pair, split)
    cases = [draw_case(rng, draw_rules(rng, rng.choice(kinds), pair)) for _ in range(n)]
    replies = list(zip(cases, ask_all(lab, [write_prompt(case) for case in cases]), strict=True))
    higher, lower = (sum(c.rules[role].is_followed(r) for c, r in replies) for role in pair)
    return {"higher": higher, "lower": lower, "right": count_right(replies), "n": n}


def count_right(replies: Sequence[tuple[Case, str]]) -> int:
    """Replies that are exactly the answer: the right number, written by the winning rule."""
    return sum(reply == case.answer for case, reply in replies)


def count_alone(lab: Lab, role: Any, n: int, seed: int) -> Counts:
    """How many replies follow the only rule, which is in this role."""
    rng = Random(f"alone/{role}/{seed}")
    cases = [draw_case(rng, draw_rules(rng, rng.choice(KINDS), [role])) for _ in range(n)]
    replies = list(zip(cases, ask_all(lab, [write_prompt(case) for case in cases]), strict=True))
    followed = sum(case.rules[role].is_followed(reply) for case, reply in replies)
    return {"followed": followed, "right": count_right(replies), "n": n}


def count_plain(lab: Lab, n: int, seed: int) -> Counts:
    """How many replies are right if there is no rule."""
    rng = Random(f"plain/{seed}")
    cases = [draw_case(rng, {}) for _ in range(n)]
    replies = list(zip(cases, ask_all(lab, [write_prompt(case) for case in cases]), strict=True))
    return {"right": count_right(replies), "n": n}


def count_injections(lab: Lab, n: int, seed: int) -> dict[str, Counts]:
    """For each disguise of a rule in a tool's output, how many replies follow it."""
    rng = Random(f"injections/{seed}")
    cases = [draw_case(rng, draw_rules(rng, rng.choice(KINDS), ["tool"])) for _ in range(n)]
    found = {}
    for disguise in DISGUISES:
        replies = ask_all(lab, [write_injection(case, disguise) for case in cases])
        pairs = zip(cases, replies, strict=True)
        found[disguise] = {
            "followed": sum(c.rules["tool"].is_followed(r) for c, r in pairs),
            "n": n,
        }
    return found


def count_layouts(lab: Lab, n: int, seed: int) -> dict[str, Counts]:
    """For each layout, how many replies follow the rule that is alone, and the other one."""
    rng, found = Random(f"layouts/{seed}"), {}
    roles = ("developer", "user")
    cases = [draw_case(rng, draw_rules(rng, rng.choice(KINDS), roles)) for _ in range(n)]
    for layout in LAYOUTS:
        replies = ask_all(lab, [write_layout(case, layout) for case in cases])
        pairs = list(zip(cases, replies, strict=True))
        alone, asking = (sum(c.rules[role].is_followed(r) for c, r in pairs) for role in roles)
        found[layout.name] = {"alone": alone, "asking": asking, "n": n}
    return found


def measure_conflicts(lab: Lab, split: Any, n: int, seed: int) -> dict[str, Counts]:
    """The conflicts of every pair of roles."""
    return {name_pair(pair): count_conflicts(lab, pair, split, n, seed) for pair in PAIRS}


def measure_rest(lab: Lab, n: int, seed: int) -> dict[str, Any]:
    """Single rules, no rule, and injections."""
    return {
        "alone": {role: count_alone(lab, role, n, seed) for role in PLACES},
        "plain": count_plain(lab, n, seed),
        "injections": count_injections(lab, n, seed),
    }


def name_pair(pair: tuple[str, str]) -> str:
    """The higher role over the lower one."""
    return " over ".join(pair)


def measure_main(lab: Lab, n: int, seed: int) -> dict[str, Counts]:
    """The main measure alone, from at least n conflicts of each split."""
    each = -(-n // len(REGISTERED))
    return {
        split: add_counts(count_conflicts(lab, pair, split, each, seed) for pair in REGISTERED)
        for split in ("seen", "held_out")
    }


def add_counts(counts: Iterable[Counts]) -> Counts:
    """The sums of several counts with the same names."""
    listed = list(counts)
    return {name: sum(each[name] for each in listed) for name in listed[0]}


def measure(seed: int) -> dict[str, Any]:
    """The whole experiment: about 17 minutes of processor time."""
    base = load("nano", verbose=False)
    tuned = train_model(base, hierarchy_examples(base, seed, EXAMPLES), seed)
    shuffled = train_model(base, shuffled_examples(base, seed, EXAMPLES), seed)
    mixed = train_model(base, mixed_examples(base, seed, EXAMPLES), seed)
    seeds = {}
    for other in (seed + 1, seed + 2):
        lab = train_model(base, hierarchy_examples(base, other, EXAMPLES), other)
        seeds[str(other)] = measure_main(lab, N, other)
    splits = ("seen", "held_out")
    return {
        "settings": SETTINGS | {"examples": EXAMPLES},
        "tried": TRIED,
        "known rule": {
            "before": measure_known_rule(base, N, seed),
            "hierarchy": measure_known_rule(tuned, N, seed),
        },
        "before": {"main": measure_main(base, N, seed), "plain": count_plain(base, N, seed)},
        "models": {
            "hierarchy": {
                "conflicts": {each: measure_conflicts(tuned, each, N, seed) for each in splits}
            }
            | measure_rest(tuned, N, seed)
            | {"kinds": measure_kinds(tuned, N, seed)},
            "roles shuffled": {"conflicts": {"seen": measure_conflicts(shuffled, "seen", N, seed)}}
            | measure_rest(shuffled, N, seed),
        },
        "layouts": {
            "hierarchy": count_layouts(tuned, N, seed),
            "layouts mixed": count_layouts(mixed, N, seed),
        },
        "other seeds": seeds,
    }
