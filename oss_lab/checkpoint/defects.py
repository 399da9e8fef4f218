"""What can be wrong with a checkpoint, as data: kinds, their order, and what was found in a folder.

Defects are reported in the order of KINDS; within a kind by file name, then in the order of the
tensor table (unknown tensors alphabetically). How they are found is in `examine.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from oss_lab.checkpoint.fields import printable
from oss_lab.checkpoint.header import Located
from oss_lab.checkpoint.layouts import Layout
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
    "missing",
    "unknown",
    "dtype",
    "shape",
    "scale",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of reporting: no such folder; config.json; the index's own text; a shard that is not
there; a file that is cut off or no safetensors; one name twice; index and shards that disagree;
names of the other layout; then tensor by tensor, NaN scale bytes last."""


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong, as a sentence and as the file, tensor or field it names."""

    kind: Kind
    sentence: str
    file: str | None = None
    tensor: str | None = None
    field: str | None = None


@dataclass
class Examination:
    """What a folder holds and what is wrong with it.

    Attributes:
        config: None where it cannot be used.
        shapes: the same, or one with the same tensors where other fields of it cannot be used.
    """

    folder: Path
    layout: Layout = "original"
    config: ModelConfig | None = None
    shapes: ModelConfig | None = None
    tensors: dict[str, Located] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)

    def complain(self, kind: Kind, sentence: str, file: str, tensor: str | None = None) -> None:
        tensor = None if tensor is None else printable(tensor)
        self.defects.append(Defect(kind, sentence, printable(file), tensor))
