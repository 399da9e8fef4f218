"""The constraint of one reply: Harmony's grammar up to the answer, then the grammar of the answer.

Outside the answer a reply may be any well-formed Harmony. On `final`, every token keeps the text a
prefix of the answer's grammar, and the token that ends the turn is allowed where the text may end.
No special token is allowed inside the answer, whatever its grammar says.
"""

import functools
from typing import Literal, Self

import tiktoken
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from oss_lab.errors import LabError
from oss_lab.grammar.matcher import Matcher
from oss_lab.harmony.specials import ENDOFTEXT, MESSAGE, RETURN, find_special_tokens

Place = Literal["before", "answer", "end"]


class ReplyConstraint:
    """A position in a reply: before its answer, inside it, or at the end of the turn.

    Args:
        harmony, answer: matchers, which are copied.
        size: the number of ids in the model's vocabulary; at least those of the encoding.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        harmony: Matcher,
        answer: Matcher,
        size: int,
        place: Place = "before",
    ) -> None:
        self._encoding, self._size = encoding, size
        self._harmony, self._answer = harmony.copy(), answer.copy()
        self._place: Place = place
        self._specials = find_special_tokens(encoding)

    def copy(self) -> Self:
        """An independent constraint at the same position."""
        return type(self)(self._encoding, self._harmony, self._answer, self._size, self._place)

    def allowed(self) -> Bool[Tensor, "vocab"]:
        """True for each id that may come next; none at the end of the turn."""
        if self._place == "before":
            mask = torch.from_numpy(self._harmony.allowed())
        elif self._place == "answer":
            mask = torch.from_numpy(self._answer.allowed())
            can_end = bool(mask[self._specials.ids[ENDOFTEXT]])
            mask &= mask_ordinary_ids(self._encoding)
            mask[self._specials.ids[RETURN]] = can_end
        else:
            mask = torch.zeros(0, dtype=torch.bool)
        return mask if len(mask) == self._size else pad(mask, (0, self._size - len(mask)))

    def accept(self, id: int) -> None:
        """Move past this id.

        Raises:
            LabError: it is not allowed here.
        """
        is_end = id == self._specials.ids[RETURN]
        if self._place == "before":
            self._harmony.accept(id)
            if self._harmony.is_complete:
                self._place = "answer" if id == self._specials.ids[MESSAGE] else "end"
        elif self._place == "end":
            raise LabError("the reply has ended, so no token may follow")
        elif is_end and self._answer.can_end:
            self._place = "end"
        elif id in self._specials.names:
            why = " before it is complete" if is_end else ""
            name = self._specials.names[id]
            raise LabError(f"{self._answer.what} does not allow {name}{why}")
        else:
            self._answer.accept(id)


@functools.lru_cache(maxsize=4)
def mask_ordinary_ids(encoding: tiktoken.Encoding) -> Bool[Tensor, "vocab"]:
    """True for each id of the vocabulary that is not a special token."""
    mask = torch.ones(encoding.n_vocab, dtype=torch.bool)
    mask[list(find_special_tokens(encoding).names)] = False
    return mask
