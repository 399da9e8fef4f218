"""Read and write the folder of a bundle. Nothing in it is executed.

`evidence.json` is one object:

    format      1
    stamp       model, config, origin (checkpoint SHA-256, kernels, dtype, device, seed,
                interventions, versions), sampling, max_tokens, time (start, in UTC)
    prompts     name, question, instructions (null if none)
    replies     prompt (its index), effort, prompt_ids, ids, text and tokens by channel, stop,
                trace (the file's path inside the folder)

`traces/000-low.safetensors` and so on are traces as `oss_lab/record/trace_file.py` writes
them, over the prompt and the complete reply.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn, get_args

from oss_lab.checkpoint.atomic import write_text
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony.messages import CHANNELS, EFFORTS
from oss_lab.hooks.arguments import check_arguments
from oss_lab.record.evidence.bundle import (
    FILE,
    Evidence,
    RecordedPrompt,
    RecordedReply,
    RecordingSettings,
)
from oss_lab.record.reply import Stop
from oss_lab.record.trace import Origin

FORMAT = 1
LARGEST = 2**24  # limit for a model's sizes: views allocate arrays of these sizes
STOPS: tuple[Stop, ...] = get_args(Stop)


@check_arguments
def read_evidence(folder: str | Path) -> Evidence:
    """Read the bundle in a folder.

    Raises:
        LabError: there is none, or it is damaged or incomplete.
    """
    evidence = read_partial_evidence(Path(folder))
    wanted = len(evidence.prompts) * len(EFFORTS)
    if len(evidence.replies) < wanted:
        raise LabError(
            f"{folder} contains {len(evidence.replies)} of {wanted} replies: the recording was"
            " interrupted; run the same command again to resume it"
        )
    for reply in evidence.replies:
        if not (evidence.folder / reply.trace).is_file():
            raise LabError(
                f"{folder} is incomplete: {reply.trace} is missing; copy the whole folder"
            )
    return evidence


BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def read_partial_evidence(folder: Path) -> Evidence:
    """Read the bundle in a folder, which may still lack replies."""
    file = folder / FILE
    if not file.is_file():
        raise LabError(f"{folder} contains no {FILE}; create such a folder with `oss-lab record`")
    try:
        held = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        return _parse_evidence(folder, held)
    except LabError as error:
        raise LabError(f"{file}: {error}") from None
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}"
        raise LabError(f"{file} is damaged or was not written by oss-lab ({reason})") from None


def write_evidence(evidence: Evidence) -> None:
    """Write `evidence.json` atomically."""
    held = {
        "format": FORMAT,
        "stamp": asdict(evidence.stamp),
        "prompts": [asdict(each) for each in evidence.prompts],
        "replies": [asdict(each) | {"trace": each.trace} for each in evidence.replies],
    }
    write_text(evidence.folder / FILE, json.dumps(held) + "\n")


def _parse_evidence(folder: Path, held: dict[str, Any]) -> Evidence:
    if held["format"] != FORMAT:
        raise LabError(f"its format is {held['format']!r}; this version reads {FORMAT}")
    stamp, origin = held["stamp"], held["stamp"]["origin"]
    check_keys(held, ("format", "stamp", "prompts", "replies"))
    check_keys(stamp, [each.name for each in fields(RecordingSettings)])
    prompts = tuple(RecordedPrompt(**each) for each in held["prompts"])
    for each in prompts:
        if not all(
            type(text) is str for text in (each.name, each.question, each.instructions or "")
        ):
            raise ValueError("a prompt is not text")
    config = dict(stamp["config"])
    if not all(type(config[name]) is int for name in ("num_experts", "vocab_size")):
        raise ValueError("a size of the model is not an integer")
    if any(type(size) is int and not 0 <= size <= LARGEST for size in config.values()):
        raise ValueError("a size of the model is out of bounds")
    evidence = Evidence(
        folder,
        RecordingSettings(
            model=str(stamp["model"]),
            config=config,
            origin=Origin.read(origin),
            sampling=Sampling(**stamp["sampling"]),
            max_tokens=int(stamp["max_tokens"]),
            time=str(stamp["time"]),
        ),
        prompts,
        tuple(_parse_reply(each, len(prompts), config["vocab_size"]) for each in held["replies"]),
    )
    places = [(reply.prompt, EFFORTS.index(reply.effort)) for reply in evidence.replies]
    if places != sorted(set(places)):
        raise ValueError("the replies are not in order")
    return evidence


def _parse_reply(held: dict[str, Any], prompts: int, vocabulary: int) -> RecordedReply:
    """Check and build one reply; raises ValueError if it is impossible."""
    check_keys(held, [*(each.name for each in fields(RecordedReply)), "trace"])
    reply = RecordedReply(
        held["prompt"],
        held["effort"],
        _parse_ids(held["prompt_ids"], vocabulary),
        _parse_ids(held["ids"], vocabulary),
        dict(held["text"]),
        dict(held["tokens"]),
        held["stop"],
    )
    if reply.prompt not in range(prompts) or reply.effort not in EFFORTS:
        raise ValueError("a reply has an unknown prompt or effort")
    if reply.stop not in STOPS or held["trace"] != reply.trace:
        raise ValueError("a reply has an unknown stop reason or the wrong trace file")
    known = {*CHANNELS, "format"}
    if not known.issuperset([*reply.text, *reply.tokens]):
        raise ValueError("a reply has an unknown channel")
    if not all(type(text) is str for text in reply.text.values()):
        raise ValueError("a reply is not text")
    counts = reply.tokens.values()
    if sum(counts) != len(reply.ids) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("the tokens per channel do not add up to the reply")
    return reply


def check_keys(held: dict[str, Any], known: Collection[str]) -> None:
    """Raise ValueError for a key that this version does not write."""
    if unknown := [name for name in held if name not in known]:
        raise ValueError(f"unknown key {unknown[0]!r}")


def _parse_ids(held: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    if not held or not all(type(id) is int and 0 <= id < vocabulary for id in held):
        raise ValueError("the token ids are empty or not in the vocabulary")
    return tuple(held)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
