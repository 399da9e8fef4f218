"""A request that an engine works on: what was generated for it so far, and its random numbers."""

from collections import deque

from oss_lab.engine.engine import Engine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import Draw
from oss_lab.hooks.recording import Recording
from oss_lab.record.token import Token


class Row:
    """One request in a batch.

    Attributes:
        number: its place in the order of joining.
        tokens: what was generated so far.
        forced: ids that come next, before the model chooses again.
    """

    def __init__(self, request: Request, number: int, engine: Engine) -> None:
        self.request, self.number = request, number
        self.tokens: list[Token] = []
        self.forced: deque[int] = deque()
        self.recording = request.selection and Recording(engine.model, request.selection)
        self.draw = Draw(request.sampling.seed, request.draw)
        context = engine.config.max_context_length
        self.room = min(request.max_tokens, context - len(request.tokens))

    @property
    def is_watched(self) -> bool:
        """Whether something of its forwards is recorded or changed."""
        return self.recording is not None or bool(self.request.effects)

    @property
    def ids(self) -> list[int]:
        """The whole sequence."""
        return [*self.request.tokens, *(token.id for token in self.tokens)]

    @property
    def is_done(self) -> bool:
        """Whether it was ended by a stop id, max_tokens or the context."""
        last = self.tokens[-1].id if self.tokens else None
        return last in self.request.stop or len(self.tokens) >= self.room
