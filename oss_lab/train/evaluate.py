"""How often nano is right on problems it never saw, by task and effort.

`python -m oss_lab.train.evaluate [FOLDER]` prints the table and writes it beside the weights as
`evaluation.json`. A reply is right if its final channel is the answer and nothing else. Decoding
is greedy; problems follow from the seed; intervals are Wilson's at 95 %.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from oss_lab.checkpoint.read import find_folder
from oss_lab.generate import GREEDY
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.loading import load
from oss_lab.reply import Reply
from oss_lab.train.data import prompt_of
from oss_lab.train.tasks import OutOfReach, Problem, Products, Sums, Task

BATCH = 64
MAX_TOKENS = 320
SUITE: dict[str, Task] = {
    "product 3x2 digits": Products(lengths=(3, 2)),
    "product 2x2 digits": Products(lengths=(2, 2)),
    "product 3x1 digits": Products(lengths=(3, 1)),
    "sum 3+3 digits": Sums(lengths=(3, 3)),
    "out of reach": OutOfReach(),
}


@dataclass(frozen=True)
class Score:
    """Accuracy over n problems, its 95 % interval, and the mean number of analysis tokens."""

    task: str
    effort: Effort
    n: int
    accuracy: float
    interval: tuple[float, float]
    mean_analysis_tokens: float


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for `right` of `n` (J. Am. Stat. Assoc. 22, 1927, p. 209)."""
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / n) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def answered(lab: Lab, problems: list[Problem], effort: Effort) -> Iterator[tuple[Problem, Reply]]:
    """Each problem with nano's greedy reply, BATCH at a time."""
    for start in range(0, len(problems), BATCH):
        part = problems[start : start + BATCH]
        prompts = [prompt_of(problem.question, effort) for problem in part]
        replies = lab.replies(prompts, sampling=GREEDY, max_tokens=MAX_TOKENS)
        yield from zip(part, replies, strict=True)


def score(lab: Lab, name: str, effort: Effort, n: int, seed: int) -> Score:
    """Evaluate one task of the suite at one effort on n held-out problems."""
    rng = Random(f"{seed}/{name}")
    problems = [SUITE[name].draw(rng, "held_out") for _ in range(n)]
    right = thought = 0
    for problem, reply in answered(lab, problems, effort):
        right += reply.final == problem.answer
        thought += len(lab.encoding.encode_ordinary(reply.analysis))
    low, high = wilson(right, n)
    return Score(
        name, effort, n, round(right / n, 4), (round(low, 4), round(high, 4)), round(thought / n, 1)
    )


def table(scores: list[Score]) -> Table:
    shown = Table("task", "effort", "n", "accuracy", "95 % interval", "analysis tokens")
    for each in scores:
        low, high = each.interval
        shown.add_row(
            each.task,
            each.effort,
            f"{each.n}",
            f"{each.accuracy:.1%}",
            f"{low:.1%} – {high:.1%}",
            f"{each.mean_analysis_tokens:.0f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate nano on held-out problems.")
    parser.add_argument("folder", nargs="?", default="nano", help="checkpoint folder or nano")
    parser.add_argument("--problems", type=int, default=500, help="per task and effort")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    lab = load(arguments.folder)
    todo: list[tuple[str, Effort]] = [(name, effort) for name in SUITE for effort in EFFORTS]
    scores = [
        score(lab, name, effort, arguments.problems, arguments.seed)
        for name, effort in tqdm(todo, unit="score", disable=None)
    ]
    Console().print(table(scores))
    report = {"seed": arguments.seed, "scores": [asdict(each) for each in scores]}
    file = Path(find_folder(arguments.folder)) / "evaluation.json"
    file.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
