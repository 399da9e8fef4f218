"""Defects of a checkpoint as data: their kinds, their order, and those found in a folder.

Defects are reported in the order of KINDS; within a kind by file name, then in the order of the
tensor table (unknown tensors alphabetically). `examine.py` finds them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from oss_lab.checkpoint.fields import make_printable
from oss_lab.checkpoint.header import TensorLocation
from oss_lab.checkpoint.layouts import ExpertStorage, Layout
from oss_lab.config import ModelConfig

Kind = Literal[
    "folder",
    "config",
    "index",
    "shard",
    "file",
    "duplicate",
    "placement",
    "layout",
    "storage",
    "missing",
    "unknown",
    "dtype",
    "shape",
    "scale",
    "value",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of reporting: no such folder; config.json; the index itself; a missing shard; a file
that is truncated or not safetensors; a duplicate name; an index that disagrees with the shards;
names of the other layout; experts stored in two ways; then tensor by tensor. NaN scale bytes are
last, and NaN or infinity in the weights, which only `inspect --deep` looks for."""


@dataclass(frozen=True)
class Defect:
    """One defect: a sentence, and the file, tensor or field that it names."""

    kind: Kind
    sentence: str
    file: str | None = None
    tensor: str | None = None
    field: str | None = None


@dataclass
class Examination:
    """The contents of a folder and their defects.

    Attributes:
        config: None if it cannot be used.
        shapes: a configuration with the folder's tensor shapes: `config`, or one with defaults for
            other fields that cannot be used. None if a field that determines shapes is wrong.
        tensors: by the published name; `TensorLocation.name` is the name in the file.
    """

    folder: Path
    layout: Layout = "original"
    experts: ExpertStorage = "mxfp4"
    config: ModelConfig | None = None
    shapes: ModelConfig | None = None
    tensors: dict[str, TensorLocation] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    def add_defect(self, kind: Kind, sentence: str, file: str, tensor: str | None = None) -> None:
        tensor = None if tensor is None else make_printable(tensor)
        self.defects.append(Defect(kind, sentence, make_printable(file), tensor))
