"""A trace: the values that a model computed at selected hook points, over one token sequence.

    trace = lab.trace(reply, points=["moe.expert_ids", "attn.sink_mass"])
    trace["moe.expert_ids"]                       [layer seq slot], labeled with channels
    trace["resid.post", 3]                        a tensor [seq hidden]
    trace["attn.sink_mass"].groupby("channel").mean("seq")
    trace.to_pandas("moe.margin")                 one row per number
    trace.save("run.safetensors"); read_trace("run.safetensors")

`trace_file.py` describes the file.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, check_points
from oss_lab.hooks.selection import Selection, is_integer, name_tensor
from oss_lab.record.token_labels import TokenLabel
from oss_lab.record.trace_file import (
    UNREADABLE,
    read_trace_file,
    to_path,
    unreadable_header_error,
    write_trace,
)

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True)
class Origin:
    """Where a trace comes from.

    Attributes:
        checkpoint: SHA-256 of configuration, weights and vocabulary; None for a model that was
            not loaded from a folder.
        kernels: the engine that computed it; `reference` is the reference model.
        seed: of the random numbers; None if none were used.
        interventions: the changes inside the model, as text.
        reason: why the reference model computed it although kernels were requested, or None.
        versions: of oss_lab, torch and Python.
        experts: storage of the experts' weights, `mxfp4` or `bf16`.
        parts: the parts of the model that were replaced by a learner's functions.
    """

    checkpoint: str | None
    kernels: str
    dtype: str
    device: str
    seed: int | None
    interventions: tuple[str, ...]
    versions: Mapping[str, str]
    reason: str | None = None
    experts: str = "mxfp4"  # also in files from before this field
    parts: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: dict[str, Any]) -> "Origin":
        """The origin in a file, where tuples are lists. Older files have fewer fields."""
        interventions, parts = tuple(given["interventions"]), tuple(given.get("parts", ()))
        values: dict[str, Any] = given | {"interventions": interventions, "parts": parts}
        return cls(**values)


@dataclass(frozen=True, repr=False)
class Trace:
    """Tensors by point and layer, and a label for each token.

    Attributes:
        tokens, labels: of the full sequence, even if only some positions were recorded.
        tensors: name -> [seq, ...], with names such as `moe.expert_ids/3` (layer 3) or
            `out.logits` (outside the layers); bfloat16 if the model computes in it.
        heads_per_kv_head: query heads that share a key-value head.
        config: of the model; None in files from before this field.
        texts: the text of every token in `out.top_ids`, by id; empty if that was not recorded, or
            the vocabulary is unknown.
    """

    tokens: tuple[int, ...]
    labels: tuple[TokenLabel, ...]
    selection: Selection
    layers: int
    heads_per_kv_head: int
    tensors: Mapping[str, Tensor]
    origin: Origin
    config: ModelConfig | None = None
    texts: Mapping[int, str] = field(default_factory=dict)

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions that were recorded."""
        chosen = self.selection.positions
        return tuple(range(len(self.tokens))) if chosen is None else chosen

    def layers_of(self, point: str) -> tuple[int, ...]:
        """The layers of a point that were recorded; () for a point outside the layers."""
        check_points([point])
        if not POINTS[point].is_per_layer:
            return ()
        chosen = self.selection.layers
        return tuple(range(self.layers)) if chosen is None else chosen

    def tensor(self, point: str, layer: int | None = None) -> Tensor:
        """The tensor [seq ...] of one point and layer, as a copy that autograd accepts.

        Raises:
            LabError: it was not recorded.
        """
        name = name_tensor(point, layer)
        if name not in self.tensors:
            self._explain_missing(point, layer)
        return self.tensors[name].clone()

    def _explain_missing(self, point: str, layer: int | None) -> NoReturn:
        """Raise LabError for a point or layer that was not recorded."""
        check_points([point])
        if point not in self.selection.points:
            kept = ", ".join(self.selection.points)
            raise LabError(
                f"this trace does not contain {point!r}; it contains {kept}: record it with"
                f' `lab.trace(..., ["{point}"])`'
            )
        if not POINTS[point].is_per_layer:
            raise LabError(f"{point} is outside the layers; leave layer {layer} out")
        layers = self.layers_of(point)
        recorded = ", ".join(map(str, layers))
        recorded = f"layers {recorded}" if len(layers) > 1 else f"only layer {recorded}"
        if layer is None:
            raise LabError(f"{point} needs a layer; this trace has {recorded}")
        raise LabError(f"layer {layer} is out of range; this trace has {recorded}")

    def find(self, text: str) -> tuple[int, ...]:
        """Positions of the tokens in which an occurrence of `text` starts, in order.

        Raises:
            LabError: the text is empty.
        """
        if not isinstance(text, str):
            raise LabError(f"find: expected text, got {text!r}")
        if not text:
            raise LabError("find: the text is empty; give at least one character")
        whole = "".join(label.text for label in self.labels)
        starts = [0, *accumulate(len(label.text) for label in self.labels)]
        found, at = [], whole.find(text)
        while at >= 0:
            found.append(bisect_right(starts, at) - 1)
            at = whole.find(text, at + 1)
        return tuple(dict.fromkeys(found))

    def __repr__(self) -> str:
        kept = ", ".join(self.selection.points)
        parts = f", parts replaced: {', '.join(self.origin.parts)}" if self.origin.parts else ""
        return f"<trace of {len(self.tokens)} tokens, {len(self.positions)} kept, at {kept}{parts}>"

    @overload
    def __getitem__(self, key: str) -> "xarray.DataArray": ...

    @overload
    def __getitem__(self, key: tuple[str, int | None]) -> Tensor: ...

    def __getitem__(self, key: str | tuple[str, int | None]) -> "xarray.DataArray | Tensor":
        """`trace[point, layer]`: a tensor. `trace[point]`: a labeled array of all layers.

        Both are copies.

        Raises:
            LabError: it was not recorded.
        """
        if isinstance(key, tuple):
            is_named = len(key) == 2 and isinstance(key[0], str)
            if not is_named or not (key[1] is None or is_integer(key[1])):
                raise LabError(f"expected a point, or a point and a layer, got {key!r}")
            return self.tensor(key[0], None if key[1] is None else index(key[1]))
        return self.to_xarray(key)

    def to_xarray(self, point: str) -> "xarray.DataArray":
        """All layers of a point as an array with named axes: `layer`, then the point's axes.

        The coordinates along `seq` are `token`, `text`, `role`, `channel`, `recipient`, `message`
        and `part`. Floating-point values are float32.
        """
        import numpy as np
        import xarray

        layers = self.layers_of(point)
        if point not in self.selection.points:
            self._explain_missing(point, None)
        parts = [self.tensor(point, layer) for layer in layers] or [self.tensor(point)]
        arrays = [(p.float() if p.is_floating_point() else p).numpy() for p in parts]
        axes = POINTS[point].axes
        coords: dict[str, Any] = {"layer": list(layers)} if layers else {}
        if "seq" in axes:
            coords |= {"seq": list(self.positions)} | self._seq_coords()
        coords |= {axis: numbers for axis, numbers in self.head_numbers().items() if axis in axes}
        values = np.stack(arrays) if layers else arrays[0].copy()
        dims = ("layer", *axes) if layers else axes
        return xarray.DataArray(values, coords=coords, dims=dims, name=point)

    def head_numbers(self) -> dict[str, list[int]]:
        """The heads that were recorded, by axis name; empty if all were."""
        if self.selection.heads is None:
            return {}
        kv_heads = {head // self.heads_per_kv_head for head in self.selection.heads}
        return {"head": list(self.selection.heads), "kv_head": sorted(kv_heads)}

    def _seq_coords(self) -> dict[str, Any]:
        labels = [self.labels[position] for position in self.positions]
        columns: dict[str, Sequence[Any]] = {
            "token": [self.tokens[position] for position in self.positions],
            "text": [label.text for label in labels],
            "role": [label.role or "" for label in labels],
            "channel": [label.channel or "" for label in labels],
            "recipient": [label.recipient or "" for label in labels],
            "message": [label.message for label in labels],
            "part": [label.part for label in labels],
        }
        return {name: ("seq", values) for name, values in columns.items()}

    def to_pandas(self, point: str) -> "pandas.DataFrame":
        """One row per number of a point. Its `.to_parquet(path)` needs pyarrow."""
        return self[point].to_dataframe().reset_index()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file for `read_trace`. It contains no code.

        Raises:
            LabError: the folder does not exist, or the file exists and is not a trace.
        """
        write_trace(self, to_path(path))


def read_trace(path: str | Path) -> Trace:
    """Read the trace in a file.

    Raises:
        LabError: it is not a trace, is damaged, or was written in another format.
    """
    file = to_path(path)
    head, tensors = read_trace_file(file)
    try:
        return _parse_trace(head, tensors)
    except UNREADABLE as error:
        raise unreadable_header_error(file, error) from None


def _parse_trace(head: dict[str, Any], tensors: dict[str, Tensor]) -> Trace:
    chosen = {
        name: None if head[name] is None else tuple(map(int, head[name]))
        for name in ("layers", "heads", "positions")
    }
    selection = Selection(tuple(head["points"]), **chosen)
    trace = Trace(
        tokens=tuple(map(int, head["tokens"])),
        labels=tuple(TokenLabel(*label) for label in head["labels"]),
        selection=selection,
        layers=int(head["model_layers"]),
        heads_per_kv_head=int(head["heads_per_kv_head"]),
        tensors=tensors,
        origin=Origin.read(head["origin"]),
        config=_parse_config(head.get("config")),
        texts={int(id): str(text) for id, text in dict(head.get("texts", {})).items()},
    )
    _check(trace)
    return trace


def _parse_config(given: dict[str, Any] | None) -> ModelConfig | None:
    if given is None:
        return None
    values: dict[str, Any] = {**given, "layer_types": tuple(given["layer_types"])}
    return ModelConfig(**values)


def _check(trace: Trace) -> None:
    """Raise ValueError if header and tensors do not match."""
    if len(trace.labels) != len(trace.tokens):
        raise ValueError(f"{len(trace.labels)} labels for {len(trace.tokens)} tokens")
    if not all(type(each.text) is str and type(each.message) is int for each in trace.labels):
        raise ValueError("a label has a field of the wrong type")
    if not all(0 <= position < len(trace.tokens) for position in trace.positions):
        raise ValueError("a position is outside the sequence")
    if trace.heads_per_kv_head < 1 or not all(n >= 0 for n in trace.selection.heads or ()):
        raise ValueError("a head number is out of range")
    heads = trace.head_numbers()
    expected = set()
    for name in trace.selection.points:
        if name not in POINTS:
            raise ValueError(f"unknown point {name!r}")
        has_all = POINTS[name].is_per_layer and trace.selection.layers is None
        if has_all and trace.layers > len(trace.tensors):  # checked before a long list is built
            raise ValueError(f"{trace.layers} layers, but {len(trace.tensors)} tensors")
        for layer in trace.layers_of(name) or (None,):
            expected.add(name_tensor(name, layer))
            if name_tensor(name, layer) not in trace.tensors:
                raise ValueError(f"it does not contain {name_tensor(name, layer)}")
            tensor = trace.tensor(name, layer)
            axes = POINTS[name].axes
            if tensor.dim() != len(axes) or ("seq" in axes and len(tensor) != len(trace.positions)):
                raise ValueError(f"{name} has the wrong shape {list(tensor.shape)}")
            for axis, numbers in heads.items():
                if axis in axes and tensor.shape[axes.index(axis)] != len(numbers):
                    raise ValueError(f"{name} has the wrong shape {list(tensor.shape)}")
    if other := trace.tensors.keys() - expected:
        raise ValueError(f"the tensor {min(other)} is not in the header")
