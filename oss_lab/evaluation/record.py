"""Record evidence: ask each prompt at each effort, and save every reply with its trace.

A reply's trace is saved before `evidence.json` lists the reply, and both files are written
atomically. A stopped recording therefore resumes after the last reply that is listed. All replies
are sampled with the same seed. Prompts with tools are not supported.
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
from oss_lab.harmony import Conversation
from oss_lab.harmony.messages import CHANNELS, EFFORTS, Effort
from oss_lab.hooks.cost import BUDGET, format_bytes, nbytes
from oss_lab.hooks.points import POINTS as TABLE
from oss_lab.hooks.selection import Selection
from oss_lab.lab import Lab
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.progress import track_progress
from oss_lab.record.evidence.bundle import (
    FILE,
    POINTS,
    TRACES,
    Evidence,
    RecordedPrompt,
    RecordedReply,
    RecordingSettings,
)
from oss_lab.record.evidence.file import read_evidence, read_partial_evidence, write_evidence
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import count_channel_tokens

Place = tuple[int, Effort]


def record(
    lab: Lab,
    out: str | Path,
    prompts: Sequence[RecordedPrompt | str],
    *,
    seed: int = 0,
    sampling: Sampling | None = None,
    max_tokens: int = MAX_TOKENS,
    budget: int = BUDGET,
    name: str | None = None,
) -> Evidence:
    """Ask every prompt at every effort, and save the replies that are not in the folder yet.

    Args:
        prompts: such as `GENERAL` of `prompts.py`, or `oss_lab.nano.prompts.draw_nano_prompts()`.
        sampling: by default the lab's; its seed is replaced by `seed`.
        max_tokens: of one reply.
        budget: maximum bytes of all traces, if every reply had `max_tokens` tokens.
        name: the model's name in the recording; by default that of the checkpoint's folder.

    Raises:
        LabError: the folder holds something else, a prompt does not fit into the context, or the
            traces might exceed the budget.
    """
    asked = tuple(map(_to_recorded_prompt, prompts))
    if not asked:
        raise LabError("there is no prompt to record; give at least one")
    if max_tokens < 1:
        raise LabError(f"max_tokens is {max_tokens}; it must be 1 or more")
    conversations = build_conversations(lab, asked)
    needed = predict_bytes(lab, conversations, max_tokens)
    if needed > budget:
        raise LabError(
            f"the traces of {len(conversations)} replies may take {format_bytes(needed)}, and the"
            f" budget is {format_bytes(budget)}; use fewer prompts, a smaller max_tokens or a"
            " larger budget"
        )
    stamp = build_stamp(lab, replace(sampling or lab.sampling, seed=seed), max_tokens, name)
    evidence = open_recording(Evidence(Path(out), stamp, asked, ()))
    done: dict[Place, RecordedReply] = {
        (reply.prompt, reply.effort): reply
        for reply in evidence.replies
        if (evidence.folder / reply.trace).is_file()
    }
    todo = [place for place in conversations if place not in done]
    for number, effort in track_progress(todo, "record", "reply", leave=True):
        conversation = conversations[number, effort]
        reply = lab.chat(conversation, sampling=stamp.sampling, max_tokens=max_tokens)
        done[number, effort] = written = summarize_reply(lab, reply, number, effort)
        lab.trace(reply, POINTS, budget=budget).save(evidence.folder / written.trace)
        write_evidence(replace(evidence, replies=tuple(sort_replies(done))))
    return read_evidence(evidence.folder)


def build_conversations(lab: Lab, asked: Sequence[RecordedPrompt]) -> dict[Place, Conversation]:
    """The conversation of each prompt and effort; checks that each leaves room for an answer."""
    conversations: dict[Place, Conversation] = {}
    for number, each in enumerate(asked):
        for effort in EFFORTS:
            conversation = lab.conversation(
                each.question, effort=effort, instructions=each.instructions
            )
            tokens, _ = lab.render(conversation)
            check_tokens(tokens, lab.config, name=f"prompt {number}", spare=1)
            conversations[number, effort] = conversation
    return conversations


def predict_bytes(lab: Lab, conversations: Mapping[Place, Conversation], max_tokens: int) -> int:
    """Bytes of all tensors of all traces if every reply had `max_tokens` tokens."""
    total, selection = 0, Selection(POINTS)
    for conversation in conversations.values():
        longest = len(lab.render(conversation)[0]) + max_tokens
        seq = min(longest, lab.config.max_context_length)
        total += sum(nbytes(lab.model, selection, TABLE[point], seq) for point in POINTS)
    return total


def build_stamp(
    lab: Lab, sampling: Sampling, max_tokens: int, name: str | None
) -> RecordingSettings:
    """The stamp of a recording with these settings that starts now."""
    folder = None if lab.checkpoint is None else lab.checkpoint.folder
    interventions = tuple(map(str, lab.interventions))
    return RecordingSettings(
        model=name or (folder.resolve().name if folder else "a model without files"),
        config=asdict(lab.config),
        origin=build_origin(choose_engine(lab), lab.digest, interventions, sampling.seed),
        sampling=sampling,
        max_tokens=max_tokens,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def open_recording(evidence: Evidence) -> Evidence:
    """Make the folder, or read the replies that it already holds of the same recording."""
    folder, traces = evidence.folder, evidence.folder / TRACES
    if (folder / FILE).exists():
        found = read_partial_evidence(folder)
        theirs, ours = recording_settings(found), recording_settings(evidence)
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


def recording_settings(evidence: Evidence) -> dict[str, Any]:
    """Everything that determines the replies, by name."""
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


def summarize_reply(lab: Lab, reply: Reply, number: int, effort: Effort) -> RecordedReply:
    """The part of a reply that is saved."""
    channels = {name: getattr(reply, name) for name in CHANNELS}
    return RecordedReply(
        number,
        effort,
        reply.prompt_tokens,
        reply.ids,
        {name: text for name, text in channels.items() if text},
        dict(count_channel_tokens(reply, lab.tokenizer)),
        reply.stop,
    )


def sort_replies(done: Mapping[Place, RecordedReply]) -> list[RecordedReply]:
    """The replies sorted by prompt, then from low to high effort."""
    return sorted(done.values(), key=lambda reply: (reply.prompt, EFFORTS.index(reply.effort)))


def _to_recorded_prompt(prompt: RecordedPrompt | str) -> RecordedPrompt:
    return prompt if isinstance(prompt, RecordedPrompt) else RecordedPrompt("own", prompt)
