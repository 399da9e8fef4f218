"""The ledger: measured numbers in prose that no compared cell near them prints.

A number in a lesson is bound to a check in one of three ways: code of its section prints it or
computes with it, so the test of the notebooks recomputes it; it is a fact of a configuration or of
MXFP4 (see `facts.py`); or it is in a claim here, which a test recomputes.
`tests/lab/test_claims.py` fails for a number that has none, and for a claim that differs from the
prose. Pages without cells, such as README.md, have claims, too.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from oss_lab import one_file
from oss_lab.checkpoint.plan import checkpoint_bytes, count_parameters, plan_memory
from oss_lab.config import GPT_OSS_20B as SMALL
from oss_lab.config import GPT_OSS_120B as LARGE
from oss_lab.config import GPT_OSS_NANO as NANO
from oss_lab.course import doctor
from oss_lab.course.exercises import list_sheets, load_nano
from oss_lab.course.instruments import QUESTION
from oss_lab.course.mistakes import MISTAKES
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.nano.training import evaluate


@dataclass(frozen=True)
class Claim:
    """A passage of a page, and the function that writes it from what it measures.

    Attributes:
        page: the file in the repository, such as "notebooks/04_attention.ipynb".
        passage: the words in the prose, with the number in them.
        compute: returns the passage, with the number computed.
    """

    page: str
    passage: str
    compute: Callable[[], str]


# Lessons: what the first or the last section says about another one


def count_longer_tokens() -> str:
    tokens = load_nano().tokenizer.token_byte_values()
    return f"nano's {sum(len(token) > 1 for token in tokens)} longer tokens"


def find_expert_of_times() -> str:
    """The expert of the first layer that every `*` of nano's reply goes to."""
    lab = load_nano()
    trace = lab.trace(lab.chat(QUESTION, effort="high"), ["moe.expert_ids"], layers=[0])
    chosen = [set(trace["moe.expert_ids", 0][n].tolist()) for n in trace.find("*")]
    (expert,) = set.intersection(*chosen)
    return f"Expert {expert}: its work comes"


def answer_without_thinking() -> str:
    return f"third digit of `{load_nano().chat(QUESTION, effort='low').final}`"


def find_memory() -> str:
    """Of usual sizes; with an expert cache of 1 GiB."""
    needed = plan_memory(SMALL, expert_cache_bytes=2**30).total
    return f"what fits into {min(size for size in (8, 12, 16, 24) if needed <= size * 1e9)} GB"


def compare_parameters() -> str:
    small, large = (count_parameters(each).total for each in (NANO, SMALL))
    return f"with {large / small:,.0f} times as many parameters"


# README.md and the pages of the book


def read_asset(name: str) -> Any:
    return json.loads((resources.files("oss_lab") / "assets/nano" / name).read_text("utf-8"))


def describe_conversations() -> str:
    """Alone: the questions of all places together; the other two at their place."""
    turns = read_asset("findings.json")["turns"]
    alone = [each["accuracy"]["first"] for each in turns]
    share = sum(each["count"] for each in alone) / sum(each["n"] for each in alone)
    third, last = (turns[n]["accuracy"]["second"] for n in (2, -1))
    return (
        f"{share:.0%} of simple questions right alone, {third['value']:.0%} as question"
        f" {turns[2]['turn']}, {last['value']:.0%} as question {turns[-1]['turn']}"
        f" ({last['n']} conversations"
    )


def describe_limits() -> str:
    suite = read_asset("evaluation.json")["suite"]
    asked, cut_off = (sum(each[name] for each in suite) for name in ("n", "cut_off"))
    return (
        f"up to {MAX_TOKENS:,} tokens ({evaluate.MAX_TOKENS} in this table; that limit truncated"
        f" {cut_off} of {asked:,} replies)"
    )


def describe_download() -> str:
    return f"gpt-oss-20b once ({checkpoint_bytes(SMALL) / 1e9:.1f} GB)"


def describe_memory() -> str:
    plan = plan_memory(SMALL)
    return f"up to {plan.total / 2**30:.0f} GiB of memory for {plan.context:,} tokens"


def describe_exercises() -> str:
    """Rounded to five minutes."""
    minutes = [sum(each.minutes for each in sheet.exercises) for sheet in list_sheets()]
    least, most = (5 * round(each / 5) for each in (min(minutes), max(minutes)))
    return f"its exercises about {least} to {most} more"


def count_lines() -> str:
    lines = Path(one_file.__file__).read_text("utf-8").count("\n")
    return f"in {100 * round(lines / 100)} lines of plain Python"


LESSONS, README = "notebooks/{}.ipynb", "README.md"
CLAIMS = (
    Claim(LESSONS.format("01_tokens"), "nano's 368 longer tokens", count_longer_tokens),
    Claim(LESSONS.format("05_experts"), "Expert 27: its work comes", find_expert_of_times),
    Claim(
        LESSONS.format("05_experts"),
        "more than 4 of 32, because",
        lambda: f"more than {SMALL.experts_per_token} of {SMALL.num_experts}, because",
    ),
    Claim(
        LESSONS.format("05_experts"),
        "than one time in 32,",
        lambda: f"than one time in {SMALL.num_experts},",
    ),
    Claim(LESSONS.format("09_generation"), "third digit of `22054`", answer_without_thinking),
    Claim(LESSONS.format("12_real_20b"), "with 5,452 times as many parameters", compare_parameters),
    Claim(
        LESSONS.format("12_real_20b"),
        "needs 9 MiB of memory",
        lambda: f"needs {plan_memory(NANO).total / 2**20:.0f} MiB of memory",
    ),
    Claim(LESSONS.format("12_real_20b"), "what fits into 16 GB", find_memory),
    Claim(
        LESSONS.format("A_press"),
        "The difference is 7 percent",
        lambda: f"The difference is {100 * (2**30 / 1e9 - 1):.0f} percent",
    ),
    Claim(
        LESSONS.format("A_press"),
        '"60.8 GB"',
        lambda: f'"{checkpoint_bytes(LARGE) / 2**30:.1f} GB"',
    ),
    Claim(
        README,
        "97% of simple questions right alone, 84% as question 3, 67% as question 12"
        " (300 conversations",
        describe_conversations,
    ),
    Claim(
        README,
        "up to 2,048 tokens (400 in this table; that limit truncated 1 of 73,380 replies)",
        describe_limits,
    ),
    Claim(
        README,
        "nano has 3.8 million parameters",
        lambda: f"nano has {count_parameters(NANO).total / 1e6:.1f} million parameters",
    ),
    Claim(README, "gpt-oss-20b once (13.8 GB)", describe_download),
    Claim(README, "up to 17 GiB of memory for 4,096 tokens", describe_memory),
    Claim(README, "its exercises about 25 to 40 more", describe_exercises),
    Claim(README, "in 300 lines of plain Python", count_lines),
    Claim(
        "notebooks/TEACHING.md",
        "Plan 0.6 GiB with figures",
        lambda: f"Plan {doctor.NOTEBOOK} GiB with figures",
    ),
    Claim(
        "notebooks/book/evidence.md",
        "What each of 34 mistakes changes",
        lambda: f"What each of {len(MISTAKES)} mistakes changes",
    ),
)
