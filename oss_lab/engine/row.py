"""A request while it is in a batch: its generated tokens, recording and random numbers."""

from collections import deque

from oss_lab.engine.engine import Engine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import RandomStream
from oss_lab.hooks.recording import Recording
from oss_lab.record.token import Token


class BatchRow:
    """One request in a batch.

    Attributes:
        number: 0 for the first row that joined the batch, then 1, 2, ...
        tokens: the tokens generated so far.
        forced: ids that come next, instead of sampled ones.
    """

    def __init__(self, request: Request, number: int, engine: Engine) -> None:
        self.request, self.number = request, number
        self.tokens: list[Token] = []
        self.forced: deque[int] = deque()
        self.recording = request.selection and Recording(engine.model, request.selection)
        self.random_stream = RandomStream(request.sampling.seed, request.stream_number)
        context = engine.config.max_context_length
        self.room = min(request.max_tokens, context - len(request.tokens))

    @property
    def needs_hooks(self) -> bool:
        """Whether it records or changes activations."""
        return self.recording is not None or bool(self.request.effects)

    @property
    def ids(self) -> list[int]:
        """All ids: the prompt and the generated tokens."""
        return [*self.request.tokens, *(token.id for token in self.tokens)]

    @property
    def is_done(self) -> bool:
        """Whether it has reached a stop id, max_tokens or the end of the context."""
        last = self.tokens[-1].id if self.tokens else None
        return last in self.request.stop or len(self.tokens) >= self.room
