"""A request while it is in a batch: its generated tokens, recording and random numbers."""

from collections import deque

from jaxtyping import Bool
from torch import Tensor

from oss_lab.engine.engine import Engine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import RandomStream
from oss_lab.errors import LabError
from oss_lab.hooks.recording import Recording
from oss_lab.record.token import Token


class RowError(LabError):
    """No token can be chosen for one row; the other rows can continue without it.

    Attributes:
        row: the row to remove from the batch.
    """

    def __init__(self, row: "BatchRow", sentence: str) -> None:
        super().__init__(sentence)
        self.row = row


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
        self._constraint = request.constraint and request.constraint.copy()
        self._accepted = 0  # of `tokens`, by the constraint
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

    def find_allowed(self) -> Bool[Tensor, "vocab"] | None:
        """True for each id that its constraint allows next; None without a constraint.

        The constraint accepts here the tokens that were added since the last call, so it never
        knows a token that the row does not have. If it is interrupted, it starts over.

        Raises:
            RowError: the constraint does not allow one of the tokens, or allows no next one.
        """
        given = self.request.constraint
        if given is None:
            return None
        constraint, accepted = self._constraint, self._accepted
        if constraint is None:
            constraint, accepted = given.copy(), 0
        self._constraint = None  # until all of this succeeded
        try:
            for token in self.tokens[accepted:]:
                constraint.accept(token.id)
            mask = constraint.allowed()
        except LabError as error:
            raise RowError(self, str(error)) from error
        if not mask.any():
            raise RowError(self, "the constraint allows no id here; check its grammar")
        self._constraint, self._accepted = constraint, len(self.tokens)
        return mask

    def allows(self, id: int) -> bool:
        """Whether this id may come next."""
        mask = self.find_allowed()
        return mask is None or bool(mask[id])
