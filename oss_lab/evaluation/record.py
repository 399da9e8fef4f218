"""Recording evidence: each prompt at each effort, the reply written down with its trace.

A reply's trace is there before `evidence.json` tells of the reply, and either file appears complete
or not at all, so that a stopped recording goes on behind the last reply it tells of. Every reply
draws from the same seed. Tools are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oss_lab.analysis.forwards import choose_engine
from oss_lab.analysis.tracing import build_origin
from oss_lab.checkpoint.atomic import partial_folder
from oss_lab.engine.request import check_tokens
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, render
from oss_lab.harmony.messages import CHANNELS, EFFORTS, Effort
from oss_lab.hooks.cost import BUDGET, nbytes, shown
from oss_lab.hooks.points import POINTS as TABLE
from oss_lab.hooks.selection import Selection
from oss_lab.lab import Lab
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.progress import progress
from oss_lab.record.evidence.bundle import FILE, POINTS, TRACES, Asked, Evidence, Stamp, Written
from oss_lab.record.evidence.file import read_begun, read_evidence, write_evidence
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import channel_counts

Place = tuple[int, Effort]


def record(
    lab: Lab,
    out: str | Path,
    prompts: Sequence[Asked | str],
    *,
    seed: int = 0,
    sampling: Sampling | None = None,
    max_tokens: int = MAX_TOKENS,
    budget: int = BUDGET,
    name: str | None = None,
) -> Evidence:
    """Ask every prompt at every effort, and keep what is not in the folder yet.

    Args:
        prompts: such as `GENERAL` of `prompts.py`, or `nano_prompts()` of `oss_lab.nano.prompts`.
        sampling: the lab's where there is none; its seed is replaced by `seed`.
        max_tokens: of a reply.
        budget: bytes of all traces, if every reply were as long as it may be.
        name: what the model is called; by default the checkpoint's folder.

    Raises:
        LabError: the folder holds something else, a prompt does not fit, or the traces might not
            fit the budget.
    """
    asked = tuple(map(_asked, prompts))
    if not asked:
        raise LabError("there is no prompt to record; give at least one")
    if max_tokens < 1:
        raise LabError(f"max_tokens is {max_tokens}; it must be 1 or more")
    conversations = rendered(lab, asked)
    needed = predicted(lab, conversations, max_tokens)
    if needed > budget:
        raise LabError(
            f"the traces of {len(conversations)} replies may take {shown(needed)}, and the budget"
            f" is {shown(budget)}: ask fewer prompts, give a smaller max_tokens, or a larger budget"
        )
    stamp = stamped(lab, replace(sampling or lab.sampling, seed=seed), max_tokens, name)
    evidence = begin(Evidence(Path(out), stamp, asked, ()))
    done: dict[Place, Written] = {
        (reply.prompt, reply.effort): reply
        for reply in evidence.replies
        if (evidence.folder / reply.trace).is_file()
    }
    todo = [place for place in conversations if place not in done]
    for number, effort in progress(todo, "record", "reply", leave=True):
        conversation = conversations[number, effort]
        reply = lab.chat(conversation, sampling=stamp.sampling, max_tokens=max_tokens)
        done[number, effort] = written = told(lab, reply, number, effort)
        lab.trace(reply, POINTS, budget=budget).save(evidence.folder / written.trace)
        write_evidence(replace(evidence, replies=tuple(in_order(done))))
    return read_evidence(evidence.folder)


def rendered(lab: Lab, asked: Sequence[Asked]) -> dict[Place, Conversation]:
    """The conversation of each prompt and effort, all of them with room for an answer."""
    conversations: dict[Place, Conversation] = {}
    for number, each in enumerate(asked):
        for effort in EFFORTS:
            conversation = lab.conversation(
                each.question, effort=effort, instructions=each.instructions
            )
            tokens = render(conversation, lab.tokenizer).tokens
            check_tokens(tokens, lab.config, name=f"prompt {number}", spare=1)
            conversations[number, effort] = conversation
    return conversations


def predicted(lab: Lab, conversations: Mapping[Place, Conversation], max_tokens: int) -> int:
    """Bytes of all traces' tensors, if every reply were as long as it may be."""
    total, selection = 0, Selection(POINTS)
    for conversation in conversations.values():
        longest = len(render(conversation, lab.tokenizer).tokens) + max_tokens
        seq = min(longest, lab.config.max_context_length)
        total += sum(nbytes(lab.model, selection, TABLE[point], seq) for point in POINTS)
    return total


def stamped(lab: Lab, sampling: Sampling, max_tokens: int, name: str | None) -> Stamp:
    """What a recording with these settings is stamped with, at this time."""
    folder = None if lab.checkpoint is None else lab.checkpoint.folder
    interventions = tuple(map(str, lab.interventions))
    return Stamp(
        model=name or (folder.resolve().name if folder else "a model without files"),
        config=asdict(lab.config),
        origin=build_origin(choose_engine(lab), lab.digest, interventions, sampling.seed),
        sampling=sampling,
        max_tokens=max_tokens,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def begin(evidence: Evidence) -> Evidence:
    """Make the folder, or go on with what it holds of the same recording."""
    folder, traces = evidence.folder, evidence.folder / TRACES
    if (folder / FILE).exists():
        found = read_begun(folder)
        theirs, ours = settings(found), settings(evidence)
        if other := [name for name in ours if theirs.get(name) != ours[name]]:
            raise LabError(
                f"{folder} holds another recording: it differs in {' and '.join(other)}; choose"
                " another folder"
            )
    elif folder.exists() and set(folder.iterdir()) - {partial_folder(folder / FILE)}:
        raise LabError(f"{folder} is not empty and holds no evidence; choose another folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_evidence(evidence)
        found = evidence
    traces.mkdir(exist_ok=True)
    return found


def settings(evidence: Evidence) -> dict[str, Any]:
    """All that the replies follow from, by name."""
    stamp = evidence.stamp
    config = {n: list(v) if isinstance(v, tuple) else v for n, v in stamp.config.items()}
    return {
        "model": stamp.model,
        "config": config,
        "prompts": evidence.prompts,
        "max_tokens": stamp.max_tokens,
        **asdict(stamp.sampling),
        **asdict(stamp.origin),
    }


def told(lab: Lab, reply: Reply, number: int, effort: Effort) -> Written:
    """What is kept of a reply."""
    channels = {name: getattr(reply, name) for name in CHANNELS}
    return Written(
        number,
        effort,
        reply.prompt_tokens,
        reply.ids,
        {name: text for name, text in channels.items() if text},
        dict(channel_counts(reply, lab.tokenizer)),
        reply.stop,
    )


def in_order(done: Mapping[Place, Written]) -> list[Written]:
    """Prompt by prompt, each from low to high effort."""
    return sorted(done.values(), key=lambda reply: (reply.prompt, EFFORTS.index(reply.effort)))


def _asked(prompt: Asked | str) -> Asked:
    return prompt if isinstance(prompt, Asked) else Asked("own", prompt)
