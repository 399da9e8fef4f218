"""Read training examples: one conversation per line, in the form of OpenAI's chat messages.

    {"messages": [{"role": "user", "content": "2+2?"},
                  {"role": "assistant", "reasoning_content": "2+2=4", "content": "4"}],
     "tools": [...], "effort": "low"}

(In the file it is one line.) `tools` and `effort` may be absent. Reasoning may also be named
`thinking`. A conversation is rendered as in training (`mode="training"`): earlier turns lose their
reasoning, as they do in a chat, and are then not learned. Blank lines are skipped. The first defect
is an error with its line, so training starts only if the whole file can be used.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken

from oss_lab.errors import HarmonyWarning, LabError
from oss_lab.evaluation.jsonl import check_fields, get_optional
from oss_lab.evaluation.rows import read_jsonl_records
from oss_lab.finetune.loss_mask import choose_learned
from oss_lab.finetune.recipe import Recipe
from oss_lab.harmony import convert_messages, describe_tools, render
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.harmony.notices import warn

KEYS = ("messages", "tools", "effort")
Data = Path | str | Sequence[Mapping[str, Any]]
"""A file with one example per line, or the examples themselves."""


@dataclass(frozen=True)
class Example:
    """One conversation as tokens.

    Attributes:
        learned: which tokens count in the loss; the first never does.
        weight: how much each of them counts. A reply with a reward below the average has a
            negative one: see `policy.py`.
    """

    tokens: list[int]
    learned: list[bool]
    weight: float = 1.0


def read_examples(
    data: Data, encoding: tiktoken.Encoding, recipe: Recipe, effort: Effort
) -> list[Example]:
    """All examples, in order. Warns about what their rendering leaves out.

    Args:
        effort: of examples that name none.

    Raises:
        LabError: the first example that cannot be used, with its line.
        OSError: the file cannot be read.
    """
    examples, notes = [], dict[str, list[str]]()
    for place, fields in _list_records(data):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", HarmonyWarning)
            try:
                example, found = build_example(fields, encoding, recipe, effort)
            except LabError as error:
                raise LabError(f"{place}: {error}") from None
        found += [str(each.message) for each in caught]
        for text in dict.fromkeys(found):
            notes.setdefault(text, []).append(place)
        examples.append(example)
    if not examples:
        where = data if isinstance(data, Path | str) else "the list of examples"
        raise LabError(f'{where} has no examples; give it lines of {{"messages": [...]}}')
    warn(_describe(text, places) for text, places in notes.items())
    return examples


def _list_records(data: Data) -> Iterable[tuple[str, dict[str, Any]]]:
    """(where it is, its fields) of each example."""
    if isinstance(data, Path | str):
        yield from read_jsonl_records(Path(data))
        return
    for number, fields in enumerate(data):
        if not isinstance(fields, Mapping):
            raise LabError(f"examples[{number}] must be a dictionary, not {type(fields).__name__}")
        yield f"examples[{number}]", dict(fields)


def _describe(text: str, places: Sequence[str]) -> str:
    more = f" (and {len(places) - 1} more like it)" if len(places) > 1 else ""
    return f"{places[0]}: {text}{more}"


def build_example(
    fields: dict[str, Any], encoding: tiktoken.Encoding, recipe: Recipe, effort: Effort
) -> tuple[Example, list[str]]:
    """The example of one line, and what a user should know about its rendering.

    Raises:
        LabError: it cannot be used.
    """
    check_fields(fields, KEYS, "the example")
    if "messages" not in fields:
        raise LabError("the example has no messages")
    messages = get_optional(fields, "messages", list, "a list of messages") or []
    tools = get_optional(fields, "tools", list, "a list of tools") or []
    chosen = get_optional(fields, "effort", str, "a string") or effort
    if chosen not in EFFORTS:
        raise LabError(f"effort is {chosen!r}; use one of {', '.join(EFFORTS)}")
    conversation = convert_messages(
        [_rename_thinking(each) for each in messages], effort=chosen, tools=describe_tools(tools)
    )
    rendered = render(conversation, encoding, mode="training")
    learned = choose_learned(rendered, conversation, recipe.roles, recipe.channels)
    if (count := len(rendered.tokens)) - 1 > recipe.length:  # the last token is only a target
        raise LabError(
            f"the example has {count:,} tokens, and a row has {recipe.length:,}; shorten it, or"
            " raise the length (--length)"
        )
    if not any(learned[1:]):
        whose = " or ".join(recipe.roles)
        where = f" on {' or '.join(recipe.channels)}" if "assistant" in recipe.roles else ""
        raise LabError(f"the example has nothing to learn: no token of {whose}{where} counts")
    return Example(rendered.tokens, learned), list(rendered.warnings)


def _rename_thinking(message: Any) -> Any:
    """`thinking`, as in OpenAI's published data sets, is reasoning under another name."""
    if not isinstance(message, Mapping) or "thinking" not in message:
        return message
    if message.get("reasoning_content") is not None:
        raise LabError("a message has both `thinking` and `reasoning_content`; keep one of them")
    renamed = {key: value for key, value in message.items() if key != "thinking"}
    if message["thinking"] is not None:
        renamed["reasoning_content"] = message["thinking"]
    return renamed


def hash_examples(examples: Sequence[Example]) -> str:
    """SHA-256 of all tokens and of what is learned."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.tokens, example.learned)).encode())
    return digest.hexdigest()
