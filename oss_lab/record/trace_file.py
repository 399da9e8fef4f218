"""The file of a trace: safetensors with a JSON header. Nothing in it can be executed.

Tensors are named `moe.expert_ids/3` (point and layer) or `out.logits`, with shape `[seq, ...]`.
The file's metadata has one entry, `oss_lab.trace`, a JSON object:

    format          1
    tokens          ids of the full sequence
    labels          for each token its text, message, role, channel, recipient and part
    points, layers, heads, positions     what was selected; null means all
    model_layers, heads_per_kv_head      of the model
    origin          checkpoint (SHA-256), kernels, dtype, device, seed, interventions, versions,
                    reason, experts, parts
    config          the fields of the model's ModelConfig; null if it is not known
    texts           text of every id in out.top_ids, by id

`config` and `texts` are absent in older files. A reader ignores entries that it does not know.
"""

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from oss_lab.checkpoint.atomic import check_output_file, write_tensors
from oss_lab.errors import LabError
from oss_lab.record.token_labels import TokenLabel

if TYPE_CHECKING:
    from oss_lab.record.trace import Trace

ENTRY = "oss_lab.trace"
FORMAT = 1
UNREADABLE = (ValueError, KeyError, TypeError, RecursionError, OverflowError)
"""The exceptions raised by a header with wrong types or names."""


def to_path(path: str | Path) -> Path:
    """The path of a trace file.

    Raises:
        LabError: it is not a path.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise LabError(f"expected the path of a trace file, got {path!r}")
    return Path(path)


def write_trace(trace: "Trace", path: Path) -> None:
    """Write the file atomically; another trace is replaced, any other file is refused."""
    check_output_file(path, "path")
    if path.exists() and path.stat().st_size and not is_trace(path):
        raise LabError(f"{path} exists and is not a trace; choose another path")
    write_tensors(path, trace.tensors, {ENTRY: json.dumps(build_header(trace))})


def is_trace(path: Path) -> bool:
    """Whether a file is a trace of any version."""
    try:
        with safe_open(path, framework="pt") as file:
            return ENTRY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def build_header(trace: "Trace") -> dict[str, Any]:
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
        # Readers from before this field refuse it, so it is written only if it says something.
        "origin": {k: v for k, v in asdict(trace.origin).items() if k != "parts" or v},
        "config": None if trace.config is None else asdict(trace.config),
        "texts": dict(trace.texts),
    }


def read_trace_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the header and the tensors of a trace file.

    Raises:
        LabError: it is not a trace in this format, or is damaged.
    """
    if path.is_dir():
        raise LabError(f"{path} is a folder; give the path of a trace file in it")
    if not path.exists():
        raise LabError(f"{path} does not exist; give the path of a trace file")
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(ENTRY)
            if entry is None:
                raise LabError(f"{path} is a safetensors file, but not a trace of oss-lab")
            head = json.loads(entry)
            if head["format"] != FORMAT:
                raise LabError(
                    f"{path}: the trace has format {head['format']!r}; this version reads {FORMAT}"
                )
            return head, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except LabError:
        raise
    except SafetensorError as error:
        raise LabError(f"{path} is damaged or not a safetensors file: {error}") from None
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror or error}") from None
    except UNREADABLE as error:
        raise unreadable_header_error(path, error) from None


def unreadable_header_error(path: Path, error: Exception) -> LabError:
    """The error for a header that cannot be read."""
    return LabError(f"{path}: its trace header cannot be read ({type(error).__name__}: {error})")
