"""The hooks of one forward: every row's interventions, then what its request records."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from oss_lab.hooks.interventions.changes import Changes, Effect
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.step import Step
from oss_lab.model.hook import Hooks, no_hooks


class ForwardHooks:
    """Applies interventions and recordings row by row; `also` comes between the two."""

    def __init__(
        self,
        step: Step,
        effects: Sequence[tuple[Effect, ...]],
        recordings: Sequence[Recording | None],
        also: Hooks = no_hooks,
    ) -> None:
        self.step, self.also = step, also
        self.changes = Changes(step, effects)
        self.recordings = [(row, each) for row, each in enumerate(recordings) if each is not None]
        self.recorded = frozenset(name for _, each in self.recordings for name in each.points)
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
        """Give a recording its row of x, without padding and the keys of longer rows."""
        positions = self.step.positions[row]
        positions = positions[int((positions < 0).sum()) :]
        if not len(positions):  # this row's first token is in a later forward
            return
        x = x[row : row + 1]
        if "seq" in POINTS[point].axes:
            axis = 2 if POINTS[point].by_head else 1
            absent = x.shape[axis] - len(positions)
            x = x.narrow(axis, max(0, absent), min(x.shape[axis], len(positions)))
        if "key" in POINTS[point].axes:
            keys = min(x.shape[-1], int(positions[-1]) + 1)
            x = x[..., x.shape[-1] - keys :]
        recording.take(point, layer, x, positions)

    def commit(self) -> None:
        """Keep counts and recordings: the forward has succeeded."""
        self.changes.commit()
        for _, recording in self.recordings:
            recording.commit()


@contextmanager
def hooks_of(
    step: Step,
    effects: Sequence[tuple[Effect, ...]],
    recordings: Sequence[Recording | None],
    also: Hooks = no_hooks,
) -> Iterator[Hooks]:
    """The hooks of one forward, committed unless it fails."""
    if not any(effects) and not any(recordings):
        yield also
        return
    hooks = ForwardHooks(step, effects, recordings, also)
    yield hooks
    hooks.commit()
