"""The interface of a constraint: which ids a row may generate next.

The engine knows no grammar. It asks the constraint for a mask before it samples a token, and tells
it every token that the row gets, sampled or forced. `oss_lab.grammar` builds constraints.
"""

from typing import Protocol, Self

from jaxtyping import Bool
from torch import Tensor


class Constraint(Protocol):
    """A position in a language, such as that of a JSON schema."""

    def allowed(self) -> Bool[Tensor, "vocab"]:
        """True for each id that may come next; the position does not change.

        Raises:
            LabError: the mask cannot be computed.
        """
        ...

    def accept(self, id: int) -> None:
        """Move past this id.

        Raises:
            LabError: it is not allowed here.
        """
        ...

    def copy(self) -> Self:
        """An independent constraint at the same position."""
        ...
