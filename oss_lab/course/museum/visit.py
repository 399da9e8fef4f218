"""A lab with a bug that does not name it: its repr and its replies say `exhibit 3`."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import tiktoken

from oss_lab.engine.choice import Engines
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation
from oss_lab.harmony.prompt import Question
from oss_lab.hooks.selection import Integers
from oss_lab.lab.options import Options
from oss_lab.lab.workbench import Lab
from oss_lab.record.reply import Reply


class BuggyLab(Lab):
    """A lab over a wrong model, or with a wrong step before or after the model.

    Args:
        lab: the lab without the bug, or with it in its model. It must have the library's tokenizer.
        tokenizer: replaces the lab's.
        change_prompt: changes every conversation before it is rendered.
        change_reply: changes every complete reply; the events of `stream` show it unchanged.
        stops: ids that end a turn, besides the right ones.
    """

    def __init__(
        self,
        lab: Lab,
        label: str = "",
        *,
        tokenizer: tiktoken.Encoding | None = None,
        change_prompt: Callable[[Conversation], Conversation] = lambda given: given,
        change_reply: Callable[[Reply], Reply] = lambda given: given,
        stops: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(lab.model, tokenizer or lab.tokenizer, lab.sampling, lab.effort)
        self.change_prompt, self.change_reply = change_prompt, change_reply
        self.stops |= stops
        self.set_label(label)

    def set_label(self, label: str) -> None:
        """Name this lab in its repr, its replies and its traces."""
        self.label = label
        self.engines = Engines(self.model, parts=(label,))

    def with_parts(self, **functions: Callable[..., Any]) -> Lab:
        """Not possible: your part may replace the wrong one.

        Raises:
            LabError: always.
        """
        raise LabError("an exhibit takes no parts, which may replace its bug")

    def conversation(self, question: Question, **asking: Any) -> Conversation:
        """As `Lab.conversation`, with this lab's change."""
        return self.change_prompt(super().conversation(question, **asking))

    def chat(self, question: Question | None = None, **options: Unpack[Options]) -> Reply:
        """As `Lab.chat`, with this lab's change."""
        return self.change_reply(super().chat(question, **options))

    def chat_batch(
        self,
        questions: Sequence[Question],
        draws: Integers | None = None,
        **options: Unpack[Options],
    ) -> list[Reply]:
        """As `Lab.chat_batch`, with this lab's change."""
        return [self.change_reply(each) for each in super().chat_batch(questions, draws, **options)]

    @property
    def _name(self) -> str:
        return self.label
