"""`ScriptedModel`: replies written beforehand as Harmony text, with the interface of a `Lab`.

It is for tests and lessons of tools that nano never learned. The script is read by place: reply n
answers the nth input of the conversation, an input being a question or the outputs after a reply.
So a script gives the same replies in every run, and threads do not share a position.

    model = ScriptedModel([write_call("functions.add", a=2, b=3), write_answer("5")])
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import tiktoken

from oss_lab.errors import LabError, explain_unknown
from oss_lab.harmony.events import Event
from oss_lab.harmony.messages import Conversation, Effort
from oss_lab.harmony.notices import warn
from oss_lab.harmony.prompt import Question, build_prompt
from oss_lab.harmony.render import render
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    find_special_tokens,
)
from oss_lab.lab.options import MAX_TOKENS, MESSAGE_KEYWORDS, Options
from oss_lab.record.builder import ReplyBuilder, Stream
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.tokenizer import load_vocabulary

UNUSABLE = {"continue_from", "points", "interventions", "response_format"}
Script = str | Callable[[Conversation], str]
"""Harmony text after `<|start|>assistant`, or a function that writes it for a conversation."""


class ScriptedModel:
    """A model that writes what it was given.

    Args:
        replies: Harmony text after `<|start|>assistant`; each ends at its first stop token. See
            `write_call` and `write_answer`.
        tokenizer: by default nano's vocabulary, which can encode any text.

    Sampling options are accepted and have no effect. Log-probabilities are NaN.
    """

    effort: Effort = "medium"

    def __init__(
        self, replies: Sequence[Script], tokenizer: tiktoken.Encoding | None = None
    ) -> None:
        if isinstance(replies, str) or not isinstance(replies, Sequence):
            raise LabError(f"expected a list of replies, got {type(replies).__name__}")
        self.replies = tuple(replies)
        self.tokenizer = load_vocabulary("nano") if tokenizer is None else tokenizer

    def stream(self, question: Question, **options: Unpack[Options]) -> Stream:
        """The next reply of the script as a stream; keywords as in `Options`."""
        if unknown := options.keys() - Options.__annotations__.keys():
            raise LabError(explain_unknown("keyword", min(unknown), Options.__annotations__))
        if unusable := options.keys() & UNUSABLE:
            raise LabError(f"{min(unusable)} has no effect on a ScriptedModel; leave it out")
        given: Any = {name: value for name, value in options.items() if name in MESSAGE_KEYWORDS}
        prompt = build_prompt(question, default_effort=self.effort, **given)
        rendered = render(prompt, self.tokenizer)
        warn(rendered.warnings)
        ids = self._encode(prompt)[: options.get("max_tokens", MAX_TOKENS)]
        stop = options.get("stop", ())
        builder = ReplyBuilder(
            self.tokenizer,
            prompt,
            tuple(rendered.tokens),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            warnings=rendered.warnings,
        )

        def events() -> Iterator[list[Event]]:
            for token in ids:
                yield builder.add(Token(token, math.nan, forced=True))
                if builder.is_stopped:
                    return

        return Stream(builder, events(), lambda reply: reply)

    def chat(self, question: Question, **options: Unpack[Options]) -> Reply:
        """The next reply of the script."""
        return self.stream(question, **options).read()

    def _encode(self, prompt: Conversation) -> list[int]:
        """The ids of the reply to this conversation, up to its first stop token."""
        number = count_inputs(prompt)
        if number > len(self.replies):
            raise LabError(
                f"the script has {len(self.replies)} replies, but the conversation needs reply"
                f" {number}; add one"
            )
        script = self.replies[number - 1]
        text = script if isinstance(script, str) else script(prompt)
        ids = self.tokenizer.encode(text, allowed_special="all")
        specials = find_special_tokens(self.tokenizer).ids
        stops = {specials[name] for name in (RETURN, CALL, ENDOFTEXT)}
        end = next((place for place, each in enumerate(ids, 1) if each in stops), len(ids))
        if end < len(ids):
            raise LabError(f"reply {number} of the script has text after its first stop token")
        return ids


def count_inputs(conversation: Conversation) -> int:
    """How many questions and groups of tool outputs a conversation has so far."""
    roles = [
        message.role for message in conversation if message.role in ("user", "tool", "assistant")
    ]
    before = [None, *roles]
    return sum(
        role != "assistant" and (last in (None, "assistant") or role == "user")
        for last, role in zip(before, roles, strict=False)
    )


def write_call(
    tool: str,
    arguments: str | None = None,
    *,
    thinking: str = "",
    channel: str = "commentary",
    last: bool = True,
    **fields: Any,
) -> str:
    """The text of a call, such as `write_call("functions.add", a=1, b=2)`.

    Args:
        arguments: the text of the call, instead of fields as JSON.
        thinking: the analysis before it; "" for none.
        last: whether the reply ends here; if not, another call can follow.
    """
    body = json.dumps(fields, ensure_ascii=False) if arguments is None else arguments
    end = CALL if last else f"{END}{START}assistant"
    call = f"{CHANNEL}{channel} to={tool} {CONSTRAIN}json{MESSAGE}{body}{end}"
    return f"{write_analysis(thinking)}{call}"


def write_answer(text: str, *, thinking: str = "") -> str:
    """The text of an answer that ends the turn."""
    return f"{write_analysis(thinking)}{CHANNEL}final{MESSAGE}{text}{RETURN}"


def write_analysis(thinking: str) -> str:
    """The text of an analysis message that another message follows; "" for none."""
    return f"{CHANNEL}analysis{MESSAGE}{thinking}{END}{START}assistant" if thinking else ""
