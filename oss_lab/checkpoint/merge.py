"""Merge a LoRA adapter into the weights of a checkpoint: W + scale * B A, in float32.

`merge_adapter` is a generator between `values.read_values` and `rewrite.write_values`, which rounds
the result once, to BF16 or MXFP4. `describe_merge` compares the change with that rounding.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from oss_lab.checkpoint.adapter import Adapter, Change, Replacement
from oss_lab.checkpoint.rounding import PIECE, Rounding, find_kind
from oss_lab.checkpoint.values import Value
from oss_lab.errors import CheckpointError


@dataclass
class Changed:
    """How much an adapter changed one kind of tensor.

    Attributes:
        tensors: how many tensors changed; each expert's matrix counts.
        squared_change, squared_weight: sums over these tensors.
    """

    tensors: int = 0
    squared_change: float = 0.0
    squared_weight: float = 0.0

    @property
    def relative(self) -> float:
        """The norm of the change divided by the norm of the weights."""
        if not self.squared_weight:
            return float("inf") if self.squared_change else 0.0
        return (self.squared_change / self.squared_weight) ** 0.5


def merge_adapter(
    values: Iterable[Value], adapter: Adapter, changed: dict[str, Changed]
) -> Iterator[Value]:
    """Yield every value, in float32 where the adapter changes it.

    Args:
        changed: receives the size of the change of each kind of tensor.

    Raises:
        CheckpointError: the adapter changes a tensor that is not among the values.
    """
    waiting = set(adapter.changes)
    for value in values:
        changes = adapter.changes.get((value.name, value.expert))
        if changes:
            waiting.remove((value.name, value.expert))
            before = value.tensor.float()
            value = Value(value.name, value.expert, _apply(before, changes))
            report = changed.setdefault(find_kind(value.name), Changed())
            report.tensors += 1
            report.squared_change += _squared_norm(value.tensor - before)
            report.squared_weight += _squared_norm(before)
        yield value
    if waiting:
        name, _ = sorted(waiting, key=str)[0]
        raise CheckpointError(
            f"the adapter in {adapter.folder} changes {name}, which the checkpoint does not have"
        )


def _apply(tensor: Float[Tensor, "*shape"], changes: list[Change]) -> Float[Tensor, "*shape"]:
    for change in sorted(changes, key=lambda each: not isinstance(each, Replacement)):
        if isinstance(change, Replacement):
            tensor = change.tensor.float()
        else:
            delta = (change.up.float() @ change.down.float()).mul_(change.scale)
            tensor = delta.reshape(tensor.shape).add_(tensor)
    return tensor


def _squared_norm(tensor: Float[Tensor, "*shape"]) -> float:
    return sum(float(piece.dot(piece)) for piece in tensor.reshape(-1).split(PIECE))


def describe_merge(
    changed: Mapping[str, Changed], rounding: Mapping[str, Rounding]
) -> Iterator[str]:
    """Yield a line for each kind of tensor that changed; says where rounding outweighs it."""
    for kind, change in changed.items():
        line = f"{kind}: merged into {change.tensors:,} tensors, relative change"
        line += f" {change.relative:.3%}"
        if kind in rounding and rounding[kind].relative_rms > change.relative:
            line += f", less than its rounding error, {rounding[kind].relative_rms:.3%}"
            line += "; --experts bf16 keeps it" if rounding[kind].blocks else ""
        yield line
