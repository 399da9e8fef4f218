"""The two phases of lesson 18: fine-tuning that takes the dial away, and steps with prices.

Left out: a penalty for leaving the first model, and prices for the tokens of the answer.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from oss_lab.course.labs.effort.dial import count_thoughts
from oss_lab.course.labs.examples import make_example
from oss_lab.course.labs.results import FOLDER
from oss_lab.finetune import finetune
from oss_lab.finetune.policy import Policy, PolicyStep
from oss_lab.finetune.recipe import make_recipe
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab, load
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.record.reply import Reply

TASK = Products(lengths=(3, 1))
STYLES: tuple[Effort, ...] = ("low", "medium")  # of `Problem.thoughts`: nothing, or one line
EXAMPLES, SUPERVISED_RATE = 420, 6e-3
SAMPLES, RATE = 4, 3e-3
LONGEST = 60  # tokens of a reply; a line of thinking and the answer take about 35
START = FOLDER / "effort_start"  # the LoRA files after phase 1 with seed 0


@dataclass(frozen=True)
class Condition:
    """Prices of a token of analysis by effort word.

    Attributes:
        is_shuffled: whether each prompt gets the price of a random word, whatever its word is.
    """

    low: float
    medium: float
    high: float
    is_shuffled: bool = False

    def price(self, word: Effort) -> float:
        return {"low": self.low, "medium": self.medium, "high": self.high}[word]


@dataclass(frozen=True)
class Asked:
    """A prompt of phase 2: a problem, the effort word in its system message, and its price."""

    problem: Problem
    word: Effort
    price: float


def draw_examples(n: int, seed: int) -> list[dict[str, Any]]:
    """Phase 1: n conversations; each word comes with each style equally often."""
    rng, examples = Random(f"effort/{seed}"), list[dict[str, Any]]()
    for number in range(n):
        problem = TASK.draw(rng, "train")
        style = STYLES[number // len(EFFORTS) % len(STYLES)]
        word = EFFORTS[number % len(EFFORTS)]
        examples.append(make_example(problem, style) | {"effort": word})
    return examples


def supervise(seed: int, folder: Path) -> int:
    """Phase 1: write LoRA files of a nano for which the word says nothing; seconds of processor."""
    began = time.process_time()
    settings = {"targets": "attention", "batch": 4, "rows": 2, "warm_up": 3, "seed": seed}
    with TemporaryDirectory() as run:
        examples = draw_examples(EXAMPLES, seed)
        finetune("nano", examples, run, learning_rate=SUPERVISED_RATE, **settings)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(Path(run, name), folder / name)
    return round(time.process_time() - began)


def make_policy(start: Path, seed: int) -> Policy:
    """The model after phase 1, ready for phase 2."""
    lab = load("nano", verbose=False, kernels="reference")
    recipe = make_recipe(lab.config, targets="attention", learning_rate=RATE, rows=4, seed=seed)
    return Policy(lab, recipe, name="nano", start=start)


def draw_asked(condition: Condition, n: int, rng: Random) -> list[Asked]:
    """n prompts of phase 2, with the three words in turn."""
    asked = []
    for number in range(n):
        word = EFFORTS[number % len(EFFORTS)]
        payer = rng.choice(EFFORTS) if condition.is_shuffled else word
        asked.append(Asked(TASK.draw(rng, "train"), word, condition.price(payer)))
    return asked


def compute_reward(is_right: bool, thoughts: int, price: float) -> float:
    """What a reply is worth: 1 if it is right, minus the price of each token of analysis."""
    return float(is_right) - price * thoughts


def take_step(policy: Policy, asked: list[Asked]) -> PolicyStep:
    """One update from the replies to these prompts."""

    def reward(number: int, reply: Reply) -> float:
        is_right = asked[number].problem.is_right(reply.messages)
        return compute_reward(is_right, count_thoughts(policy.lab, reply), asked[number].price)

    prompts = [each.problem.prompt(each.word) for each in asked]
    return policy.step(prompts, reward, samples=SAMPLES, max_tokens=LONGEST)


def count_by_word(lab: Lab, asked: list[Asked], step: PolicyStep) -> dict[str, list[int]]:
    """For each word: replies of the step, their tokens of analysis, and how many were right."""
    counts = {word: [0, 0, 0] for word in EFFORTS}
    for prompt, replies in zip(asked, step.replies, strict=True):
        for reply in replies:
            found = (1, count_thoughts(lab, reply), prompt.problem.is_right(reply.messages))
            counts[prompt.word] = [a + b for a, b in zip(counts[prompt.word], found, strict=True)]
    return counts
