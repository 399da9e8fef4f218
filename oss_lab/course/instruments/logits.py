"""Compare the logits of two labs, for texts of several lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from oss_lab.course.instruments.example import LENGTHS, example_ids, take_prefix
from oss_lab.lab.prompts import Prompt
from oss_lab.lab.workbench import Lab


@dataclass(frozen=True)
class LogitChange:
    """How far the logits of two labs are apart, over all tokens of one text.

    Attributes:
        largest: the largest change of a logit.
        kl: the mean over the tokens of KL(first lab, second lab), in nats.
        flipped: number of tokens after which another token has the largest logit.
    """

    length: int
    largest: float
    kl: float
    flipped: int

    @classmethod
    def of(
        cls, ours: Float[Tensor, "seq vocab"], theirs: Float[Tensor, "seq vocab"]
    ) -> "LogitChange":
        p, q = (each.double().log_softmax(-1) for each in (ours, theirs))
        kl = (p.exp() * (p - q)).sum(-1).mean()
        flipped = (ours.argmax(-1) != theirs.argmax(-1)).sum()
        return cls(len(ours), float((ours - theirs).abs().max()), float(kl), int(flipped))

    def __str__(self) -> str:
        return (
            f"{self.length:4} tokens: largest change of a logit {self.largest:.2g}, mean KL"
            f" {self.kl:.2g}, most likely token differs after {self.flipped}"
        )


class LogitChanges(tuple[LogitChange, ...]):
    """One `LogitChange` per length."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self))


def compare_logits(
    lab: Lab, other: Lab, lengths: Sequence[int] = LENGTHS, of: Prompt | None = None
) -> LogitChanges:
    """Compare the logits of two labs on the first tokens of a text, for each length.

    Args:
        of: the text; by default two questions with replies of `lab`.

    Raises:
        LabError: a length exceeds the text.
    """
    ids = example_ids(lab) if of is None else lab.tokens_of(of)
    texts = [take_prefix(ids, length) for length in lengths]
    # One by one: padding of a batch would add rounding.
    return LogitChanges(LogitChange.of(lab.logits(each), other.logits(each)) for each in texts)
