"""A run of another engine: messages that grow with the events of an agent, without tokens."""

from collections.abc import Mapping
from typing import Any

from oss_lab.agents.agent import Agent
from oss_lab.agents.calls import CallRecord
from oss_lab.agents.events import CallEnded, Event, ReplyDelta, ReplyEnded, ReplyStarted, Stopped
from oss_lab.agents.stream import RunStream
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Delta, End, Start
from oss_lab.hooks.interventions import Intervention
from oss_lab.record.reply import Reply, ToolCall
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel
from oss_widgets.sources.exchange import describe_message, is_call_message
from oss_widgets.sources.tools import describe_call


class RemoteRun:
    """The messages of one question and what followed.

    Attributes:
        agent: has the tools and the options of the replies.
        stream: its events, which `RemoteSource.finish` reads.
        is_begun: whether it was read, which is possible once.
        note: why it has no answer, as a sentence, or None.
    """

    interventions: tuple[Intervention, ...] = ()
    parent: tuple[str, int] | None = None
    prompt_length = 0
    open_calls: tuple[ToolCall, ...] = ()

    def __init__(
        self, id: str, request: Mapping[str, Any], agent: Agent, prompt: Conversation
    ) -> None:
        self.id, self.agent = id, agent
        self.request: Mapping[str, Any] | None = request
        self.stream = RunStream(agent, prompt, agent.budget, agent.open_tools)
        self.ids: list[int] = []
        self.labels: list[TokenLabel] = []
        self.generated: list[Token | None] = []
        self.is_begun = False
        self.stop: str | None = None
        self.note: str | None = None
        self.seconds = 0.0
        self._messages: list[dict[str, Any]] = []
        self._records: list[CallRecord] = []
        self._first = 0  # place of the reply's first message
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The last complete reply.

        Raises:
            LabError: there is none.
        """
        if self._reply is None:
            raise LabError("the engine has not finished a reply; ask again")
        return self._reply

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call as plain data, see `describe_call`."""
        made = [each for each in self._messages if is_call_message(each)]
        records = [*self._records, *[None] * len(made)]
        return [
            describe_call(each["recipient"], each["text"], record)
            for each, record in zip(made, records, strict=False)
        ]

    @property
    def answer(self) -> str:
        """The text on the final channel."""
        return "\n".join(each["text"] for each in self._messages if each["channel"] == "final")

    def list_messages(self) -> list[dict[str, Any]]:
        return [dict(each) for each in self._messages]

    def list_diagnostics(self) -> list[dict[str, Any]]:
        return []

    def take(self, event: Event) -> None:
        """Take over what an event says."""
        match event:
            case ReplyStarted():
                self._first = len(self._messages)
            case ReplyDelta(event=Start(author=author, channel=channel, recipient=recipient)):
                names = {"role": author.role, "channel": channel, "recipient": recipient}
                self._messages.append({**names, "text": "", "isOpen": True})
            case ReplyDelta(event=Delta(text=text)):
                self._messages[-1]["text"] += text
            case ReplyDelta(event=End(message=message)):
                self._messages[-1] = describe_message(message)
            case ReplyEnded(value=reply):  # text before a call has become a preamble
                self._messages[self._first :] = map(describe_message, reply.messages)
                self._reply = reply
            case CallEnded(record=record):
                self._records.append(record)
                if record.message is not None:
                    self._messages.append(describe_message(record.message))
            case Stopped(reason=reason, detail=detail):
                self.stop = "return" if self._reply is None else self._reply.stop
                self.note = f"{detail[0].upper()}{detail[1:]}." if detail else None
                if reason == "failed":
                    raise LabError(detail or "the engine failed")
