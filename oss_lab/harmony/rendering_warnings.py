"""The known problems of a rendering, one sentence each: `Rendered.warnings`.

A call is named by its tool and arguments, because a conversation that was converted from another
format has other indices.
"""

from __future__ import annotations

from collections.abc import Sequence

from oss_lab.errors import shorten
from oss_lab.harmony.exchanges import Exchange, pair_calls
from oss_lab.harmony.messages import Message, Role
from oss_lab.harmony.policy import Mode, find_turn_start

SHOWN = 40  # characters of a call or an output


def find_warnings(
    messages: Sequence[Message],
    dropped: frozenset[int],
    *,
    policy: str,
    mode: Mode,
    next_role: Role,
) -> tuple[str, ...]:
    """What this rendering loses: a training target's reasoning, a call or an output.

    A single message (mode `message`) has no such problem.
    """
    if mode == "message":
        return ()
    warnings: list[str] = []
    target = find_turn_start(messages, len(messages))
    if mode == "training" and any(index >= target for index in dropped):
        warnings.append(
            "the policy dropped reasoning of the last turn, which is the training target;"
            " use policy 'spec' or 'keep'"
        )
    continues = mode == "completion" and next_role == "assistant"
    for exchange in pair_calls(messages):
        warnings += _describe_missing(messages, exchange, continues)
        warnings += _describe_dropped(messages, exchange, dropped, policy)
    return tuple(warnings)


def _describe_missing(
    messages: Sequence[Message], exchange: Exchange, continues: bool
) -> list[str]:
    """A call without output, or an output without call. `continues`: the model writes next."""
    if exchange.call is None:
        assert exchange.output is not None
        output = messages[exchange.output]
        return [
            f"the output {_shorten(output)} of {output.author.name!r} has no call before it; add"
            " the call or remove the output"
        ]
    if exchange.output is not None or (exchange.is_open and not continues):
        return []
    where = "" if exchange.is_open else " before the next user message"
    return [
        f"{_describe_call(messages[exchange.call])} has no output{where}; add the output or remove"
        " the call"
    ]


def _describe_dropped(
    messages: Sequence[Message], exchange: Exchange, dropped: frozenset[int], policy: str
) -> list[str]:
    """A call that the policy leaves out, with or without its output, or the output alone."""
    call, output, _ = exchange
    if call is None or not dropped.intersection((call, output)):
        return []
    if call not in dropped:
        lost = "its output but not the call"
    elif output is None:
        lost = "the call"
    else:
        lost = "the call and its output" if output in dropped else "the call but not its output"
    what = _describe_call(messages[call])
    return [f"{what}: policy {policy!r} leaves out {lost}; use policy 'hf' or 'keep'"]


def _describe_call(call: Message) -> str:
    return f"the call to {call.recipient!r} with {_shorten(call)}"


def _shorten(message: Message) -> str:
    return repr(shorten(" ".join(message.text.split()), SHOWN))
