"""Compare the prompts that two labs read, and the replies that they write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from oss_lab.course.instruments.example import QUESTION
from oss_lab.harmony.prompt import Question
from oss_lab.lab.options import Options, PromptOptions
from oss_lab.lab.workbench import Lab
from oss_lab.record.token_labels import token_text

MAX_TOKENS = 400  # of one reply; a model that no longer ends its replies would write thousands


@dataclass(frozen=True, repr=False)
class Comparison:
    """What differs between two prompts or two replies: one line each; empty if nothing does."""

    what: str
    lines: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __repr__(self) -> str:
        return "\n".join(self.lines) if self.lines else f"the {self.what} are equal"


def compare_prompts(
    lab: Lab, other: Lab, question: Question = QUESTION, **asking: Unpack[PromptOptions]
) -> Comparison:
    """Compare the token ids that two labs read for a question; keywords as in `Lab.logits`."""
    ours, theirs = lab.tokens_of(question, **asking), other.tokens_of(question, **asking)
    if ours == theirs:
        return Comparison("prompts", ())
    first = find_parting(ours, theirs)
    lines = [f"the prompts have {len(ours)} | {len(theirs)} tokens and part at token {first}:"]
    for name, each, ids in (("first", lab, ours), ("second", other, theirs)):
        shown = [token_text(each.tokenizer, id) for id in ids[max(0, first - 3) : first + 5]]
        lines.append(f"  {name}: {shown}")
    return Comparison("prompts", tuple(lines))


def compare_replies(
    lab: Lab, other: Lab, question: Question = QUESTION, **options: Unpack[Options]
) -> Comparison:
    """Compare analysis, answer, calls, stop and length of two replies; keywords as in `Options`."""
    options.setdefault("max_tokens", MAX_TOKENS)
    ours, theirs = lab.chat(question, **options), other.chat(question, **options)
    found = []
    for name in ("analysis", "final", "tool_calls", "stop"):
        a, b = getattr(ours, name), getattr(theirs, name)
        if a != b:
            found.append(f"{name}: {describe(a, b)}")
    if len(ours.ids) != len(theirs.ids):
        found.append(f"tokens: {len(ours.ids)} | {len(theirs.ids)}")
    return Comparison("replies", tuple(found))


def describe(a: Any, b: Any) -> str:
    """Two values; of long texts only the part from the first difference on."""
    if not isinstance(a, str) or not isinstance(b, str):
        return f"{a} | {b}"
    start = max(0, find_parting(a, b) - 10)
    return " | ".join(f"{'…' * bool(start)}{each[start : start + 40]!r}" for each in (a, b))


def find_parting(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The first place where two sequences differ, which may be the end of the shorter one."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (ours, theirs) in pairs if ours != theirs), min(len(a), len(b)))
