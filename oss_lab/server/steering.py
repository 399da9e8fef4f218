"""Tool choices that the model does not make itself: a call that must come, or only one of them.

For a required call, the reply starts with an analysis. Where that ends, the header of the call is
forced, up to the name if there is a choice. The model writes the rest, and the reply ends after the
call. The option `well_formed` makes sure that the name is one of the tools.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import tiktoken

from oss_lab.engine.row import BatchRow
from oss_lab.harmony import End, Event
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.specials import CHANNEL, CONSTRAIN, MESSAGE, START, find_special_tokens


@dataclass
class Steering:
    """What is forced on a reply, and when it has enough.

    Attributes:
        opening: ids that the reply starts with.
        call: ids of a call's header, forced after the first message.
        is_single: whether the reply ends after its first call.
    """

    opening: Sequence[int] = ()
    call: Sequence[int] = ()
    is_single: bool = False
    has_enough: bool = field(default=False, init=False)

    def begin(self, row: BatchRow) -> None:
        row.forced.extend(self.opening)

    def follow(self, row: BatchRow, events: Sequence[Event]) -> None:
        """Force what comes next, after the events of a token."""
        for event in events:
            if not isinstance(event, End):
                continue
            if is_call(event.message):
                self.has_enough |= self.is_single
            elif self.call:
                row.forced.extend(self.call)
                self.call = ()


def require_call(encoding: tiktoken.Encoding, names: Sequence[str]) -> Steering:
    """Steering to a call of one of these functions; with several, the model writes the name."""
    ids, text = find_special_tokens(encoding).ids, encoding.encode_ordinary
    opening = [ids[CHANNEL], *text("analysis"), ids[MESSAGE]]
    header = [ids[START], *text("assistant"), ids[CHANNEL]]
    if len(names) == 1:
        header += [*text(f"commentary to=functions.{names[0]} "), ids[CONSTRAIN]]
        header += [*text("json"), ids[MESSAGE]]
    else:
        header += text("commentary to=functions.")
    return Steering(opening, header, is_single=True)
