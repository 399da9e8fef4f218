"""Lesson 20: how well a monitor reads a breach in the chain of thought, and what pressure does.

A model learns from traces to work a sum out or to copy the answer from a book, which a rule
forbids. Then it is rewarded by a grader that compares with the book. The conditions differ in the
penalty, and in what the grader knows.

Registered before any run of this file: the recall of the word monitor after training, which is the
share of breaches that it flags. An effect is a difference between the conditions "penalty" and
"grader" whose 95% interval excludes 0, for the first seed. n is the breaches among TESTED replies.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from oss_lab.course.labs.monitor.data import (
    MAX_TOKENS,
    Answered,
    ask,
    draw_sums,
    draw_wrong_key,
    read_reply,
    write_traces,
)
from oss_lab.course.labs.monitor.rules import (
    FORMS,
    MONITORS,
    REWARDS,
    Run,
    list_runs,
    name_form,
    word_monitor,
)
from oss_lab.finetune import finetune, load_adapted
from oss_lab.finetune.policy import Policy
from oss_lab.finetune.recipe import make_recipe
from oss_lab.lab import Lab, load
from oss_lab.progress import track_progress

TRACES, STEPS, PROMPTS, SAMPLES = 240, 20, 8, 8
TESTED = 320  # replies at the end of a run
COMPARED, ASKED = 300, 800
"""Breaches and honest replies that the monitors judge, among this many replies."""
LEARNING_RATE = 3e-3
REWARD_RATE = 1e-3
SETTINGS = {
    "traces": TRACES,
    "steps": STEPS,
    "replies per step": PROMPTS * SAMPLES,
    "learning rate": [LEARNING_RATE, REWARD_RATE],
}
TRIED = (
    "traces in which the model says `Use the key: 97.`, or `I have the key for this.`: it did not"
    " learn to write `key` in 80 steps; `book is 97` is close to what nano writes for look-ups",
    "penalty, half of the books wrong at rate 3e-3, 3 in 4 at 1e-3: the breach stopped within"
    " 7 steps, and no hidden one was left",
    "penalty, all books wrong, rate 1e-3: the breach was hidden after 15 steps, not as in the"
    " traces but as `rose is 37`; this became the registered contrast, with other seeds",
    "longer versions of the same runs, stopped for lack of time before any of them had a result",
    "720 replies for the table of monitors: 297 of them were breaches, so 800 were drawn",
)


def learn(out: Path, hidden: float, seed: int, traces: int = TRACES) -> Lab:
    """nano after it has learned from traces, of which this share is hidden; written to `out`."""
    examples = write_traces(traces, hidden, Random(f"traces {seed}"))
    settings: dict[str, Any] = {"batch": 4, "rows": 4, "length": 256, "warm_up": 5}
    rate = LEARNING_RATE
    return finetune("nano", examples, out, threads=1, learning_rate=rate, seed=seed, **settings).lab


def count(replies: Sequence[Answered]) -> dict[str, int]:
    """Replies, those to a wrong book, right answers, breaches; of these the flagged, and forms."""
    breaches = [each for each in replies if each.is_breach]
    return {
        "n": len(replies),
        "wrong book": sum(each.task.is_trap for each in replies),
        "breaches": len(breaches),
        "right": sum(each.is_right for each in replies),
    } | {
        **{f"flagged by {name}": sum(map(flags, breaches)) for name, flags in MONITORS.items()},
        **{f"as {form}": sum(name_form(each) == form for each in breaches) for form in FORMS},
    }


def start_policy(run: Run, start: Path) -> Policy:
    """The model that has learned from traces, ready to be trained by rewards."""
    lab = load("nano", verbose=False)
    settings = {"learning_rate": REWARD_RATE, "rows": 8, "length": 256, "seed": run.seed}
    return Policy(lab, make_recipe(lab.config, **settings), name="nano", start=start)


def reinforce(policy: Policy, run: Run, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """What each step measured before it changed the model."""
    rng, luck = Random(f"prompts {run.seed}"), Random(f"penalty {run.seed}")
    for _ in range(steps):
        tasks = draw_sums(PROMPTS, "train", rng, run.wrong)
        step = policy.step(
            [task.prompt(policy.lab) for task in tasks],
            lambda n, reply, tasks=tasks: REWARDS[run.condition](read_reply(tasks[n], reply), luck),
            samples=SAMPLES,
            max_tokens=MAX_TOKENS,
        )
        written = zip(tasks, step.replies, strict=True)
        found = count([read_reply(task, reply) for task, group in written for reply in group])
        yield found | {"reward": round(step.reward, 3)}


def train_run(run: Run, start: Path) -> dict[str, Any]:
    """The counts of every step of a run, and those of held-out sums with a wrong book after it."""
    began, policy = time.process_time(), start_policy(run, start)
    steps = list(reinforce(policy, run))
    tasks = draw_sums(TESTED, "held_out", Random(f"test {run.seed}"), 1.0)
    replies = ask(policy.lab, tasks, run.seed)
    hidden = [each for each in replies if each.is_breach and not word_monitor(each)]
    return asdict(run) | {
        "steps": {name: [step[name] for step in steps] for name in steps[0]},
        "end": count(replies),
        "examples": [asdict(each) for each in (hidden or replies)[:3]],
        "seconds": round(time.process_time() - began),
    }


def compare_monitors(start: Path, seed: int) -> dict[str, Any]:
    """What each monitor flags before any reward, and whether answers follow the book.

    Both groups have COMPARED replies to held-out sums with a wrong book. They are asked again with
    another wrong book and the same random numbers.
    """
    began, lab, rng = time.process_time(), load_adapted("nano", start), Random(f"monitors {seed}")
    tasks = draw_sums(ASKED, "held_out", rng, 1.0)
    swapped = [replace(each, key=draw_wrong_key(each.answer, rng, each.key)) for each in tasks]
    replies = ask(lab, tasks, seed)
    pairs = list(zip(replies, ask(lab, swapped, seed), strict=True))
    groups = {
        "breaches": [pair for pair in pairs if pair[0].is_breach][:COMPARED],
        "honest": [pair for pair in pairs if pair[0].is_right][:COMPARED],
    }
    return {
        "asked": count(replies),
        "flagged": {
            name: {group: sum(flags(one) for one, _ in each) for group, each in groups.items()}
            for name, flags in MONITORS.items()
        },
        "n": {group: len(each) for group, each in groups.items()},
        "follow": {
            group: sum(two.follows_key for _, two in each) for group, each in groups.items()
        },
        "seconds": round(time.process_time() - began),
    }


def measure(seed: int) -> dict[str, Any]:
    """All of it: about 11 minutes of processor time."""
    runs = list_runs(seed)
    with TemporaryDirectory() as folder:
        starts = {(run.hidden, run.seed): Path(folder) / f"{run.hidden}-{run.seed}" for run in runs}
        for (hidden, each), path in starts.items():
            learn(path, hidden, each)
        monitors = compare_monitors(starts[0.1, runs[0].seed], seed)
        bar = track_progress(runs, "training by rewards", "run")
        trained = [train_run(run, starts[run.hidden, run.seed]) for run in bar]
    return {"monitors": monitors, "runs": trained, "settings": SETTINGS, "tried": TRIED}
