"""Trace every sequence of a corpus into a folder; an interrupted run resumes.

    collection = lab.collect(prompts, ["moe.expert_ids", "moe.margin"], "traces/")
    for trace in collection: ...

`collection.json` describes the collection. `00000.safetensors` and so on hold one trace each, in
the format of `oss_lab/record/trace_file.py`. Files are written atomically.
"""

import hashlib
import json
from collections.abc import Collection as Container
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from oss_lab.analysis.forwards import choose_engine
from oss_lab.analysis.tracing import trace_requests
from oss_lab.checkpoint.atomic import write_text
from oss_lab.engine.request import Request
from oss_lab.errors import LabError
from oss_lab.harmony.prompt import require_prompts
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.cost import BUDGET, format_bytes, nbytes
from oss_lab.hooks.interventions.active import find_active_effects
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Integers, Selection, to_names
from oss_lab.progress import track_progress
from oss_lab.record.token_labels import label_token_ids
from oss_lab.record.trace import Trace, read_trace

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

ABOUT = "collection.json"
FORMAT = 1


@dataclass(frozen=True)
class Collection:
    """The traces in a folder, in the order of the sequences.

    A sequence without a token to record has no trace.
    """

    folder: Path
    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Trace]:
        return map(read_trace, self.files)


@check_arguments
def collect(
    lab: "Lab",
    prompts: "Iterable[Prompt]",
    points: Sequence[str],
    out: str | Path,
    *,
    layers: Integers | None = None,
    channels: Container[str] | None = None,
    tokens_each: int | None = None,
    seed: int = 0,
    budget: float = BUDGET,
) -> Collection:
    """Trace every prompt that has no file yet.

    Args:
        prompts: replies, conversations or token ids; pass the same ones to resume.
        channels: record only tokens of messages on these channels.
        tokens_each: record at most this many tokens per sequence, chosen at random with `seed`.
        budget: limit on the size of all tensors on disk, in bytes.

    Raises:
        LabError: the folder holds another collection, or this one would exceed the budget.
    """
    folder = Path(out)
    if tokens_each is not None and tokens_each < 1:
        raise LabError(f"tokens_each is {tokens_each}; it must be 1 or more")
    if channels is not None:
        channels = to_names("channels", [channels] if isinstance(channels, str) else channels)
    sequences = [lab.tokens_of(prompt) for prompt in require_prompts(prompts, "trace")]
    whole = Selection.of(points, layers)
    points, chosen = whole.points, whole.layers
    selections = [
        Selection(
            points, chosen, None, choose_positions(lab, tokens, channels, tokens_each, seed, n)
        )
        for n, tokens in enumerate(sequences)
    ]
    pairs = [pair for pair in zip(sequences, selections, strict=True) if pair[1].positions != ()]
    needed = 0
    for tokens, selection in pairs:
        selection.check(lab.config, len(tokens))
        needed += sum(nbytes(lab.model, selection, POINTS[p], len(tokens)) for p in points)
    if needed > budget:
        raise LabError(
            f"the traces of {len(pairs)} sequences take {format_bytes(needed)}, and the budget is"
            f" {format_bytes(budget)}: trace fewer points, layers or tokens, or raise the budget"
        )
    corpus = hashlib.sha256(json.dumps(sequences).encode()).hexdigest()
    about = {
        "format": FORMAT,
        "points": list(points),
        "layers": None if chosen is None else list(chosen),
        "channels": None if channels is None else sorted(channels),
        "tokens_each": tokens_each,
        "seed": seed,
        "corpus": corpus,
        "checkpoint": lab.digest,
        "interventions": [str(each) for each in lab.interventions],
        "dtype": str(lab.model.embedding.weight.dtype),
        "device": lab.model.device.type,
        "kernels": choose_engine(lab, points).engine.name,
    } | ({"parts": list(lab.parts)} if lab.parts else {})
    open_folder(folder, about)
    files = tuple(folder / f"{n:05}.safetensors" for n in range(len(pairs)))
    todo = [(file, *pair) for file, pair in zip(files, pairs, strict=True) if not file.exists()]
    for file, tokens, selection in track_progress(todo, "collect", "sequence", leave=True):
        request = Request(tuple(tokens), selection=selection, effects=find_active_effects(lab))
        chosen = choose_engine(lab, selection.points)
        trace_requests(chosen, lab.tokenizer, [request], lab.digest)[0].save(file)
    return Collection(folder, files)


def choose_positions(
    lab: "Lab",
    tokens: Sequence[int],
    channels: Container[str] | None,
    limit: int | None,
    seed: int,
    number: int,
) -> tuple[int, ...] | None:
    """The positions of sequence `number` to record; None for all."""
    if channels is None and limit is None:
        return None
    labels = label_token_ids(lab.tokenizer, tokens)
    there = [n for n, each in enumerate(labels) if channels is None or each.channel in channels]
    if limit is not None and len(there) > limit:
        there = sorted(Random(f"{seed}/{number}").sample(there, limit))
    return tuple(there)


def open_folder(folder: Path, about: dict[str, Any]) -> None:
    """Create the folder, or check that it holds the same collection."""
    file = folder / ABOUT
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise LabError(f"{file} is not JSON: remove {folder} or choose another") from None
        found.setdefault("kernels", about["kernels"])  # older collections do not record them
        if "parts" in found:
            raise LabError(
                f"{folder} has traces of a lab with replaced parts, whose functions may have"
                " changed since: choose another folder"
            )
        if found != about:
            other = [name for name in about if found.get(name) != about[name]]
            raise LabError(
                f"{folder} holds another collection: it differs in {' and '.join(other)}; choose"
                " another folder"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise LabError(f"{folder} is not empty and holds no collection; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(about, indent=1) + "\n")
