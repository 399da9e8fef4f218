"""How runs, tokens and results look in a message to the views; `js/source/source.js` has the types.

Tensors leave a message as `{"buffer": n, "dtype": …}` and travel as its nth binary buffer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

import numpy as np
import tiktoken
import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.interventions import Intervention
from oss_lab.record.reply import ToolCall
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel, token_text
from oss_widgets.sources.interventions import write_intervention

DTYPES = {torch.uint8: "uint8", torch.int32: "int32", torch.float32: "float32"}


class AnyRun(Protocol):
    """What views see of a run: of a lab's, or of a stored one."""

    id: str
    request: Mapping[str, Any] | None
    ids: list[int]
    labels: list[TokenLabel]
    generated: list[Token | None]
    interventions: tuple[Intervention, ...]
    parent: tuple[str, int] | None

    @property
    def prompt_length(self) -> int: ...
    @property
    def stop(self) -> str | None: ...
    @property
    def open_calls(self) -> tuple[ToolCall, ...]: ...
    @property
    def calls(self) -> list[dict[str, Any]]: ...
    @property
    def note(self) -> str | None: ...
    @property
    def answer(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    def list_messages(self) -> list[dict[str, Any]]: ...
    def list_diagnostics(self) -> list[dict[str, Any]]: ...


def describe_run(run: AnyRun, encoding: tiktoken.Encoding | None) -> dict[str, Any]:
    """A Run, with all its tokens."""
    parent = None if run.parent is None else {"run": run.parent[0], "at": run.parent[1]}
    fixed = {"id": run.id, "request": run.request, "parent": parent}
    tokens = describe_tokens(run, encoding, 0)
    return {**fixed, "tokens": tokens, **describe_state(run)}


def describe_state(run: AnyRun) -> dict[str, Any]:
    """The fields of a Run that change while it grows, without its tokens."""
    return {
        "promptLength": run.prompt_length,
        "interventions": [write_intervention(each) for each in run.interventions],
        "stop": run.stop,
        "diagnostics": run.list_diagnostics(),
        "openCalls": [{"name": each.name, "text": each.arguments} for each in run.open_calls],
        "messages": run.list_messages(),
        "calls": run.calls,
        "note": run.note,
        "answer": run.answer,
        "seconds": run.seconds,
    }


def write_note(error: LabError) -> str:
    """An error as a sentence of a view."""
    text = f"Error: {error}"
    return text if text.endswith("?") else f"{text}."


def describe_tokens(
    run: AnyRun, encoding: tiktoken.Encoding | None, begin: int
) -> list[dict[str, Any]]:
    """The tokens of a run from a position on."""
    parts = zip(run.ids[begin:], run.labels[begin:], run.generated[begin:], strict=True)
    return [describe_token(*part, encoding) for part in parts]


def describe_token(
    id: int, label: TokenLabel, token: Token | None, encoding: tiktoken.Encoding | None
) -> dict[str, Any]:
    """A Token; what is not known about it is null or empty."""
    known = token is not None and not math.isnan(token.logprob)
    alternatives = [
        {"id": other, "text": name_token(encoding, other), "logprob": logprob}
        for other, logprob in (token.alternatives if token else ())
    ]
    logprob = token.logprob if token is not None and known else None
    return {"id": id, **asdict(label), "logprob": logprob, "alternatives": alternatives}


def name_token(encoding: tiktoken.Encoding | None, id: int) -> str:
    """The text of a token; its id where the vocabulary is not known."""
    return f"<token {id}>" if encoding is None else token_text(encoding, id)


def pack(value: Any) -> tuple[Any, list[bytes]]:
    """A value as JSON, and its tensors as buffers. A number that is not finite becomes null."""
    buffers: list[bytes] = []

    def convert(part: Any) -> Any:
        if isinstance(part, Tensor):
            plain = part.detach().cpu()
            if plain.dtype not in DTYPES:
                plain = plain.float() if plain.is_floating_point() else plain.int()
            buffers.append(plain.contiguous().numpy().tobytes())
            return {"buffer": len(buffers) - 1, "dtype": DTYPES[plain.dtype]}
        if isinstance(part, Intervention):
            return convert(write_intervention(part))
        if isinstance(part, np.generic):
            part = part.item()
        if isinstance(part, float) and not math.isfinite(part):
            return None
        if isinstance(part, Mapping):
            return {str(name): convert(each) for name, each in part.items()}
        if isinstance(part, Sequence) and not isinstance(part, str):
            return [convert(each) for each in part]
        if is_dataclass(part) and not isinstance(part, type):
            return convert(asdict(part))
        return part

    return convert(value), buffers


def to_plain(value: Any) -> Any:
    """The same value with lists for tensors."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: to_plain(each) for name, each in value.items()}
    return [to_plain(each) for each in value] if isinstance(value, list) else value
