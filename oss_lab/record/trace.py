"""A trace: what a model computed at chosen points over the tokens of one sequence.

    trace = lab.trace(reply, points=["moe.expert_ids", "attn.sink_mass"])
    trace["moe.expert_ids"]                       layer seq slot, each token's channel beside it
    trace["attn.sink_mass"].groupby("channel").mean("seq")
    trace.to_pandas("moe.margin")                 a row a number
    trace.save("run.safetensors"); read_trace("run.safetensors")

`trace_file.py` says what the file holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import Selection, where
from oss_lab.record.token_labels import TokenLabel
from oss_lab.record.trace_file import UNREADABLE, read_file, unreadable, write_trace

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True)
class Origin:
    """Where a trace comes from.

    Attributes:
        checkpoint: SHA-256 of configuration, weights and vocabulary; None for a model that was
            not read from a folder.
        kernels: which code computed it; `reference` is the spelt-out model.
        seed: of what was drawn; None where nothing was.
        interventions: what was changed inside the model, as text.
        versions: of oss_lab, torch and Python.
    """

    checkpoint: str | None
    kernels: str
    dtype: str
    device: str
    seed: int | None
    interventions: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True, repr=False)
class Trace:
    """Tensors by point and layer, and what each token is.

    Attributes:
        tokens, labels: of the whole sequence, also where only some positions were kept.
        tensors: `moe.expert_ids/3` (in layers) or `out.logits` (outside) to [seq, ...]; bfloat16
            where the model computes in it.
        heads_per_kv_head: query heads that share a key-value head.
    """

    tokens: tuple[int, ...]
    labels: tuple[TokenLabel, ...]
    selection: Selection
    layers: int
    heads_per_kv_head: int
    tensors: Mapping[str, Tensor]
    origin: Origin

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions that were kept."""
        chosen = self.selection.positions
        return tuple(range(len(self.tokens))) if chosen is None else chosen

    def layers_of(self, point: str) -> tuple[int, ...]:
        """The layers of a point that were kept; () outside the layers."""
        if not POINTS[point].layered:
            return ()
        chosen = self.selection.layers
        return tuple(range(self.layers)) if chosen is None else chosen

    def tensor(self, point: str, layer: int | None = None) -> Tensor:
        """[seq, ...] of one point and layer.

        Raises:
            LabError: it was not kept.
        """
        name = where(point, layer)
        if name not in self.tensors:
            raise LabError(f"this trace holds no {name}; it holds {', '.join(self.tensors)}")
        return self.tensors[name]

    def __repr__(self) -> str:
        kept = ", ".join(self.selection.points)
        return f"<trace of {len(self.tokens)} tokens, {len(self.positions)} kept, at {kept}>"

    def __getitem__(self, point: str) -> "xarray.DataArray":
        """All layers of a point, its axes named: `layer` first, then those of the table.

        Along `seq` stand `token`, `text`, `role`, `channel`, `recipient`, `message` and `part`.
        Floating point numbers come as float32.
        """
        import numpy as np
        import xarray

        if point not in self.selection.points:
            raise LabError(
                f"this trace holds no {point!r}; it holds {', '.join(self.selection.points)}"
            )
        layers = self.layers_of(point)
        parts = [self.tensor(point, layer) for layer in layers] or [self.tensor(point)]
        arrays = [(p.float() if p.is_floating_point() else p).numpy() for p in parts]
        axes = POINTS[point].axes
        coords: dict[str, Any] = {"layer": list(layers)} if layers else {}
        if "seq" in axes:
            coords |= {"seq": list(self.positions)} | self._along_seq()
        if "head" in axes and self.selection.heads is not None:
            coords["head"] = list(self.selection.heads)
        if "kv_head" in axes and self.selection.heads is not None:
            group = self.heads_per_kv_head
            coords["kv_head"] = sorted({head // group for head in self.selection.heads})
        values = np.stack(arrays) if layers else arrays[0]
        dims = ("layer", *axes) if layers else axes
        return xarray.DataArray(values, coords=coords, dims=dims, name=point)

    def _along_seq(self) -> dict[str, Any]:
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
        """A row for each number of a point; `.to_parquet(path)` of it needs pyarrow."""
        return self[point].to_dataframe().reset_index()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file that `read_trace` reads back; nothing in it is code."""
        write_trace(self, Path(path))


def read_trace(path: str | Path) -> Trace:
    """The trace in a file.

    Raises:
        LabError: it is no trace, is damaged, or was written in another format.
    """
    head, tensors = read_file(Path(path))
    try:
        return _trace(head, tensors)
    except UNREADABLE as error:
        raise unreadable(Path(path), error) from None


def _trace(head: dict[str, Any], tensors: dict[str, Tensor]) -> Trace:
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
