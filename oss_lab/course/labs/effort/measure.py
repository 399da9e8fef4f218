"""Lesson 18: does an effort dial appear from rewards, if a token's price depends on the word?

Phase 1, supervised: nano learns products of three digits by one, half of them with a line of
thinking and half without, drawn independently of the effort word. So the word says nothing. Phase
2, reinforcement: a right answer is worth 1, and each token of analysis costs the price of the word.
CONDITIONS has the prices, and the controls.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from oss_lab.course.labs.effort.dial import answer_each_word, summarize
from oss_lab.course.labs.effort.phases import (
    EXAMPLES,
    LONGEST,
    RATE,
    SAMPLES,
    START,
    SUPERVISED_RATE,
    TASK,
    Condition,
    count_by_word,
    draw_asked,
    make_policy,
    supervise,
    take_step,
)
from oss_lab.finetune import load_adapted
from oss_lab.finetune.policy import Policy
from oss_lab.lab import Lab
from oss_lab.nano.suite import SuiteRow
from oss_lab.nano.tasks import Problem
from oss_lab.progress import track_progress

STEPS, PROMPTS = 24, 18
TESTED = 300  # held-out problems, each asked with every word
WORKERS, SPAWN = 4, get_context("spawn")  # processes that run parts at the same time
CONDITIONS: Mapping[str, Condition] = {
    "graded": Condition(0.06, 0.015, 0.0),
    "reversed": Condition(0.0, 0.015, 0.06),
    "shuffled": Condition(0.06, 0.015, 0.0, is_shuffled=True),
    "free": Condition(0.0, 0.0, 0.0),
    "too high": Condition(0.15, 0.15, 0.15),
}
REPEATED = ("graded",)  # also run with two more seeds
TRIED = (
    "sums of three terms in three styles, prices 0.06, 0.015 and 0, rate 5e-3, 24 steps: thinking"
    " died at every word in 4 steps and came back at high only, with wrong arithmetic (0, 0 and 40"
    " tokens; 0, 0 and 1 of 60 right)",
    "the same with prices 0.04, 0.016 and 0, and rate 1.5e-3, 24 steps: every word settled on the"
    " style between the others (16, 18 and 18 tokens; n = 60)",
    "the same with prices 0.03, 0.012 and 0, and rate 3e-3, stopped at step 15: as before",
    "the same with low-rank parts on all matrices and rate 2e-3, stopped at step 9: as before",
    "products in two styles with these settings, 30 steps: a dial from step 13 on (0, 18 and 18"
    " tokens; n = 60); only the number of steps was changed after it",
)


def reinforce(policy: Policy, name: str, steps: int, seed: int) -> list[dict[str, Any]]:
    """Phase 2 under this condition; what each step saw before it changed the model."""
    rng, curve = Random(f"effort/{name}/{seed}"), list[dict[str, Any]]()
    for _ in track_progress(range(steps), f"reinforcement, {name}", leave=True):
        asked = draw_asked(CONDITIONS[name], PROMPTS, rng)
        step = take_step(policy, asked)
        counts = count_by_word(policy.lab, asked, step)
        curve.append({"reward": round(step.reward, 3)} | counts)
    return curve


def draw_tested() -> list[Problem]:
    """The held-out problems of every test."""
    return SuiteRow(TASK).draw_problems("effort", TESTED, 0)


def examine(lab: Lab) -> dict[str, Any]:
    """What the words do to this model."""
    return summarize(answer_each_word(lab, draw_tested(), LONGEST))


def run_part(start: Path, name: str, seed: int) -> dict[str, Any]:
    """Phase 2 from `start` under a condition, and its test; "before" is the test alone.

    After prices that were too high, phase 2 continues without a price.
    """
    began = time.process_time()
    found: dict[str, Any] = {}
    if name == "before":
        found = examine(load_adapted("nano", start))
    else:
        policy = make_policy(start, seed)
        found = {"curve": reinforce(policy, name, STEPS, seed)} | examine(policy.lab)
        if name == "too high":
            found["then_free"] = reinforce(policy, "free", STEPS // 2, seed)
    return found | {"cpu_seconds": round(time.process_time() - began)}


def run_parts(seed: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(seed, name, result) of each part: all conditions with this seed, REPEATED with two more.

    With seed 0, the LoRA files after phase 1 replace those in START.
    """
    seeds = (seed, seed + 1, seed + 2)
    with TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS, SPAWN) as pool:
        starts = {each: START if each == 0 else Path(folder, str(each)) for each in seeds}
        for each, seconds in zip(seeds, pool.map(supervise, starts, starts.values()), strict=True):
            yield each, "phase 1", {"cpu_seconds": seconds}
        parts = [("before", each) for each in seeds] + [(name, seed) for name in CONDITIONS]
        parts += [(name, each) for name in REPEATED for each in seeds[1:]]
        jobs = [(starts[each], name, each) for name, each in parts]
        results = pool.map(run_part, *zip(*jobs, strict=True))
        bar = track_progress(results, "parts", "part", total=len(jobs))
        for (name, each), found in zip(parts, bar, strict=True):
            yield each, name, found


def measure(seed: int) -> dict[str, Any]:
    """Every part, with its prices and what was tried before."""
    seeds: dict[int, dict[str, Any]] = {}
    for each, name, found in run_parts(seed):
        seeds.setdefault(each, {})[name] = found
    seconds = sum(part["cpu_seconds"] for parts in seeds.values() for part in parts.values())
    settings = {"examples": EXAMPLES, "steps": STEPS, "prompts": PROMPTS, "samples": SAMPLES}
    return {
        "cpu_minutes": round(seconds / 60, 1),
        "settings": settings | {"supervised_rate": SUPERVISED_RATE, "rate": RATE},
        "prices": {name: asdict(condition) for name, condition in CONDITIONS.items()},
        "tried": list(TRIED),
        "seeds": seeds,
    }
