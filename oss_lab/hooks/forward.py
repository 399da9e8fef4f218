"""The hooks of one forward pass: apply each row's interventions, then record its selection."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from oss_lab.hooks.interventions.changes import Changes, Effect
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.step import ForwardPass
from oss_lab.model.hook import Hooks, no_hooks


class ForwardHooks:
    """Applies each row's interventions, then the hooks in `also`, then each row's recording.

    Attributes:
        points: the points that it uses; None if they are unknown, because there is an `also`.
    """

    def __init__(
        self,
        step: ForwardPass,
        effects: Sequence[tuple[Effect, ...]],
        recordings: Sequence[Recording | None],
        also: Hooks = no_hooks,
    ) -> None:
        self.step, self.also = step, also
        self.changes = Changes(step, effects)
        self.recordings = [(row, each) for row, each in enumerate(recordings) if each is not None]
        self.recorded = frozenset(name for _, each in self.recordings for name in each.points)
        used = self.recorded | self.changes.points
        self.points: frozenset[str] | None = used if also is no_hooks else None
        for _, recording in self.recordings:
            recording.begin()

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        x = self.also(point, layer, self.changes(point, layer, x))
        if point in self.recorded:
            for row, recording in self.recordings:
                self._record(recording, row, point, layer, x)
        return x

    def _record(
        self, recording: Recording, row: int, point: str, layer: int | None, x: Tensor
    ) -> None:
        """Pass a recording its row of x, without padding and without the keys of longer rows."""
        positions = self.step.positions[row]
        positions = positions[int((positions < 0).sum()) :]
        if not len(positions):  # only padding so far; this row starts in a later pass
            return
        x = x[row : row + 1]
        if "seq" in POINTS[point].axes:
            axis = 2 if POINTS[point].has_head_axis else 1
            absent = x.shape[axis] - len(positions)
            x = x.narrow(axis, max(0, absent), min(x.shape[axis], len(positions)))
        if "key" in POINTS[point].axes:
            keys = min(x.shape[-1], int(positions[-1]) + 1)
            x = x[..., x.shape[-1] - keys :]
        recording.add(point, layer, x, positions)

    @property
    def only_record(self) -> bool:
        """Whether these hooks change nothing."""
        return self.also is no_hooks and not self.changes.groups

    def commit(self) -> None:
        """Keep the counts and recordings, once the forward pass has succeeded."""
        self.changes.commit()
        for _, recording in self.recordings:
            recording.commit()


@contextmanager
def open_hooks(
    step: ForwardPass,
    effects: Sequence[tuple[Effect, ...]],
    recordings: Sequence[Recording | None],
    also: Hooks = no_hooks,
) -> Iterator[Hooks]:
    """Yield the hooks of one forward pass, and commit them unless it fails."""
    if not any(effects) and not any(recordings):
        yield also
        return
    hooks = ForwardHooks(step, effects, recordings, also)
    yield hooks
    hooks.commit()
