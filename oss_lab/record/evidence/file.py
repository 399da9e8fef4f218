"""The folder of a bundle, read and written; nothing in it is executed.

`evidence.json` is one object:

    format      1
    stamp       model, config, origin (checkpoint SHA-256, kernels, dtype, device, seed,
                interventions, versions), sampling, max_tokens, time (UTC, when it was begun)
    prompts     name, question, instructions (null: none)
    replies     prompt (its number), effort, prompt_ids, ids, text and tokens by channel, stop,
                trace (the file's name within the folder)

`traces/000-low.safetensors` and so on are traces as `oss_lab/record/trace_file.py` writes
them, over the prompt and the whole reply.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, get_args

from oss_lab.checkpoint.atomic import write_text
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony.messages import CHANNELS, EFFORTS
from oss_lab.record.evidence.bundle import FILE, Asked, Evidence, Stamp, Written
from oss_lab.record.reply import Stop
from oss_lab.record.trace import Origin

FORMAT = 1
LARGEST = 2**24  # of a model's sizes: what is larger would be allocated when a view is made
STOPS: tuple[Stop, ...] = get_args(Stop)


def read_evidence(folder: str | Path) -> Evidence:
    """The bundle in a folder.

    Raises:
        LabError: it holds none, or one that is damaged or not complete.
    """
    evidence = read_begun(Path(folder))
    wanted = len(evidence.prompts) * len(EFFORTS)
    if len(evidence.replies) < wanted:
        raise LabError(
            f"{folder} holds {len(evidence.replies)} of {wanted} replies: the recording was"
            " stopped, and the command that began it goes on"
        )
    for reply in evidence.replies:
        if not (evidence.folder / reply.trace).is_file():
            raise LabError(f"{folder} is not complete: {reply.trace} is missing; copy all of it")
    return evidence


BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def read_begun(folder: Path) -> Evidence:
    """The bundle in a folder, perhaps with replies still to come."""
    file = folder / FILE
    if not file.is_file():
        raise LabError(f"{folder} holds no {FILE}: `oss-lab record` writes such a folder")
    try:
        held = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        return _evidence(folder, held)
    except LabError as error:
        raise LabError(f"{file}: {error}") from None
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}"
        raise LabError(f"{file} is damaged or no evidence of oss-lab ({reason})") from None


def write_evidence(evidence: Evidence) -> None:
    """Write `evidence.json`, all of it or nothing."""
    held = {
        "format": FORMAT,
        "stamp": asdict(evidence.stamp),
        "prompts": [asdict(each) for each in evidence.prompts],
        "replies": [asdict(each) | {"trace": each.trace} for each in evidence.replies],
    }
    write_text(evidence.folder / FILE, json.dumps(held) + "\n")


def _evidence(folder: Path, held: dict[str, Any]) -> Evidence:
    if held["format"] != FORMAT:
        raise LabError(f"its format is {held['format']!r}; this version reads {FORMAT}")
    stamp, origin = held["stamp"], held["stamp"]["origin"]
    prompts = tuple(Asked(**each) for each in held["prompts"])
    for each in prompts:
        if not all(
            type(text) is str for text in (each.name, each.question, each.instructions or "")
        ):
            raise ValueError("a prompt is no text")
    config = dict(stamp["config"])
    if not all(type(config[name]) is int for name in ("num_experts", "vocab_size")):
        raise ValueError("a size of the model is no whole number")
    if any(type(size) is int and not 0 <= size <= LARGEST for size in config.values()):
        raise ValueError("a size of the model is out of bounds")
    evidence = Evidence(
        folder,
        Stamp(
            model=str(stamp["model"]),
            config=config,
            origin=Origin(**origin | {"interventions": tuple(origin["interventions"])}),
            sampling=Sampling(**stamp["sampling"]),
            max_tokens=int(stamp["max_tokens"]),
            time=str(stamp["time"]),
        ),
        prompts,
        tuple(_written(each, len(prompts), config["vocab_size"]) for each in held["replies"]),
    )
    places = [(reply.prompt, EFFORTS.index(reply.effort)) for reply in evidence.replies]
    if places != sorted(set(places)):
        raise ValueError("the replies are not in order")
    return evidence


def _written(held: dict[str, Any], prompts: int, vocabulary: int) -> Written:
    """A reply; ValueError for one that cannot be."""
    reply = Written(
        held["prompt"],
        held["effort"],
        _ids(held["prompt_ids"], vocabulary),
        _ids(held["ids"], vocabulary),
        dict(held["text"]),
        dict(held["tokens"]),
        held["stop"],
    )
    if reply.prompt not in range(prompts) or reply.effort not in EFFORTS:
        raise ValueError("a reply is to none of the prompts")
    if reply.stop not in STOPS or held["trace"] != reply.trace:
        raise ValueError("a reply has no such end or trace")
    known = {*CHANNELS, "format"}
    if not known.issuperset([*reply.text, *reply.tokens]):
        raise ValueError("a reply is on no such channel")
    if not all(type(text) is str for text in reply.text.values()):
        raise ValueError("a reply is no text")
    counts = reply.tokens.values()
    if sum(counts) != len(reply.ids) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("the tokens by channel do not add up to the reply")
    return reply


def _ids(held: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    if not held or not all(type(id) is int and 0 <= id < vocabulary for id in held):
        raise ValueError("a token is none of the vocabulary")
    return tuple(held)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
