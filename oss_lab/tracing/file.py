"""A trace as a file: safetensors with a JSON header, nothing that could be executed.

Tensors are named `moe.expert_ids/3` (point and layer) or `out.logits`, and shaped `[seq, ...]`. The
file's metadata has one entry, `oss_lab.trace`, a JSON object:

    format          1
    tokens          ids of the whole sequence
    labels          for each token its text, message, role, channel, recipient and part
    points, layers, heads, positions     what was asked for; null stands for all
    model_layers, heads_per_kv_head      of the model
    origin          checkpoint (SHA-256), kernels, dtype, device, seed, interventions, versions
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.points import POINTS
from oss_lab.safetensors_file import write_tensors
from oss_lab.token_labels import TokenLabel
from oss_lab.tracing.recording import Selection, where
from oss_lab.tracing.trace import Origin, Trace

ENTRY = "oss_lab.trace"
FORMAT = 1


def write_trace(trace: Trace, path: Path) -> None:
    """Write beside `path`, then take its place: a reader never sees half a file."""
    write_tensors(path, trace.tensors, {ENTRY: json.dumps(header(trace))})


def header(trace: Trace) -> dict[str, Any]:
    selection = asdict(trace.selection)
    return {
        "format": FORMAT,
        "tokens": trace.tokens,
        "labels": [
            [getattr(label, field.name) for field in fields(TokenLabel)] for label in trace.labels
        ],
        **selection,
        "model_layers": trace.layers,
        "heads_per_kv_head": trace.heads_per_kv_head,
        "origin": asdict(trace.origin),
    }


def read_trace(path: str | Path) -> Trace:
    """The trace in a file.

    Raises:
        LabError: it is no trace, is damaged, or was written in another format.
    """
    path = Path(path)
    if path.is_dir():
        raise LabError(f"{path} is a folder; name a trace's file in it")
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(ENTRY)
            if entry is None:
                raise LabError(f"{path} is a safetensors file, but no trace of oss-lab")
            names: list[str] = list(file.keys())
            return _trace(json.loads(entry), {name: file.get_tensor(name) for name in names})
    except SafetensorError as error:
        raise LabError(f"{path} is damaged or no safetensors file: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LabError(f"{path}: its trace header cannot be read ({reason})") from None


def _trace(head: dict[str, Any], tensors: dict[str, Tensor]) -> Trace:
    if head["format"] != FORMAT:
        raise LabError(f"the trace has format {head['format']!r}; this version reads {FORMAT}")
    chosen = {
        name: None if head[name] is None else tuple(map(int, head[name]))
        for name in ("layers", "heads", "positions")
    }
    selection = Selection(tuple(head["points"]), **chosen)
    origin = head["origin"]
    trace = Trace(
        tokens=tuple(map(int, head["tokens"])),
        labels=tuple(TokenLabel(*label) for label in head["labels"]),
        selection=selection,
        layers=int(head["model_layers"]),
        heads_per_kv_head=int(head["heads_per_kv_head"]),
        tensors=tensors,
        origin=Origin(**origin | {"interventions": tuple(origin["interventions"])}),
    )
    _check(trace)
    return trace


def _check(trace: Trace) -> None:
    """Raise ValueError where header and tensors do not belong together."""
    if len(trace.labels) != len(trace.tokens):
        raise ValueError(f"{len(trace.labels)} labels for {len(trace.tokens)} tokens")
    if not all(type(each.text) is str and type(each.message) is int for each in trace.labels):
        raise ValueError("a label is no token's")
    if not all(0 <= position < len(trace.tokens) for position in trace.positions):
        raise ValueError("a position is none of the sequence's")
    expected = set()
    for name in trace.selection.points:
        if name not in POINTS:
            raise ValueError(f"there is no point {name!r}")
        for layer in trace.layers_of(name) or (None,):
            expected.add(where(name, layer))
            tensor = trace.tensor(name, layer)
            axes = POINTS[name].axes
            if tensor.dim() != len(axes) or ("seq" in axes and len(tensor) != len(trace.positions)):
                raise ValueError(f"{name} has the shape {list(tensor.shape)}")
    if other := trace.tensors.keys() - expected:
        raise ValueError(f"the tensor {min(other)} is not in the header")
