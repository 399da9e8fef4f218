"""Items of the Responses API as chat messages, one for each item.

`phase` is the channel: `commentary` or `final_answer`. Reasoning without text, as a client gets it
from a server that hides the chain of thought, is looked up by its id among the stored items.
"""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oss_lab.errors import LabError
from oss_lab.server.errors import ApiError
from oss_lab.server.images import replace_images
from oss_lab.server.settings import Images
from oss_lab.server.store import Item

PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
PLACE = re.compile(r"messages\[(\d+)\]")


def read_input(given: str | Sequence[Mapping[str, Any]]) -> list[Item]:
    """The items of a request's input, each with a type and an id.

    Raises:
        ApiError: an id is not text.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items = []
    for number, each in enumerate(given):
        if not isinstance(each.get("id"), str | None):
            place = f"input[{number}].id"
            raise ApiError(400, f"{place} must be text", code="invalid_value", param=place)
        kind = each.get("type") or ("message" if "role" in each else None)
        prefix = PREFIXES.get(str(kind), "item")
        items.append({**each, "type": kind, "id": each.get("id") or new_id(prefix)})
    return items


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


@dataclass
class ItemReader:
    """Converts items to messages, and keeps the place of each for error messages.

    Args:
        find_items: looks up stored items by their ids.
    """

    find_items: Callable[[Sequence[str]], Mapping[str, Item]]
    images: Images
    notes: list[str]
    messages: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def read(self, items: Sequence[Item], name: str) -> None:
        """Add the messages of these items; `name` is how an error calls their list.

        Raises:
            ApiError: an item is of an unknown type, or lacks a field.
        """
        wanted = [str(each.get("id")) for each in items if needs_look_up(each)]
        stored = self.find_items(wanted) if wanted else {}
        for number, item in enumerate(items):
            place = f"{name}[{number}]"
            if needs_look_up(item):
                item = stored.get(str(item.get("id")), item)
            if item.get("type") == "item_reference":
                raise ApiError(
                    404, f"{place} refers to {str(item.get('id'))[:80]!r}, which is not stored",
                    param=place,
                )  # fmt: skip
            after = items[number + 1] if number + 1 < len(items) else {}
            message = self._convert(item, place, before_call=after.get("type") == "function_call")
            if message is not None:
                self.messages.append(message)
                self.places.append(place)

    def explain(self, error: LabError) -> ApiError:
        """The error about a message, with the place of its item."""

        def name_place(found: re.Match[str]) -> str:
            number = int(found[1])
            return self.places[number] if number < len(self.places) else found[0]

        return ApiError(400, PLACE.sub(name_place, str(error)), code="invalid_value", param="input")

    def _convert(self, item: Item, place: str, *, before_call: bool) -> dict[str, Any] | None:
        kind = item.get("type")
        if kind == "message":
            return self._convert_message(item, place, before_call=before_call)
        if kind == "reasoning":
            text = join_parts(item.get("content") or item.get("summary"), place)
            if not text:
                self.notes.append(f"{place} has no text and is left out")
                return None
            return {"role": "assistant", "content": None, "reasoning_content": text}
        if kind == "function_call":
            function = {"name": need(item, "name", place)}
            function["arguments"] = need(item, "arguments", place)
            call = {"id": need(item, "call_id", place), "type": "function", "function": function}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        if kind == "function_call_output":
            output = need(item, "output", place)
            if not isinstance(output, str):
                output = self._convert_parts({"content": output}, place) or [EMPTY_PART]
            return {
                "role": "tool",
                "tool_call_id": need(item, "call_id", place),
                "content": output,
            }
        raise ApiError(
            400,
            f"{place} has the type {str(kind)[:80]!r}, which this server does not support; use"
            " message, reasoning, function_call, function_call_output or item_reference",
            code="unsupported_content",
            param=place,
        )

    def _convert_message(self, item: Item, place: str, *, before_call: bool) -> dict[str, Any]:
        content = need(item, "content", place)
        if isinstance(content, list):
            content = self._convert_parts(item, place)
        role = need(item, "role", place)
        message = {"role": role, "content": content}
        if role == "assistant":
            phase = item.get("phase")
            if phase not in (None, "commentary", "final_answer"):
                raise ApiError(
                    400, f"{place}.phase must be commentary or final_answer", param=place
                )
            is_preamble = phase is None and before_call
            message["phase"] = "commentary" if is_preamble else phase
        return message

    def _convert_parts(self, item: Mapping[str, Any], place: str) -> list[Any]:
        """The parts of a message as parts of chat messages."""
        content = replace_images(item, self.images, self.notes)["content"]
        if not isinstance(content, list):
            raise ApiError(400, f"{place}: expected text or a list of parts", param=place)
        return [convert_part(part, f"{place}.content[{n}]") for n, part in enumerate(content)]


EMPTY_PART = {"type": "text", "text": ""}


def needs_look_up(item: Mapping[str, Any]) -> bool:
    """Whether only the store has the item: a reference, or reasoning without text."""
    if item.get("type") == "reasoning":
        return not item.get("content") and not item.get("summary")
    return item.get("type") == "item_reference"


def convert_part(part: Any, place: str) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        raise ApiError(400, f"{place} must be an object", param=place)
    kind = part.get("type")
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind not in TEXT_PARTS:
        raise ApiError(
            400,
            f"{place} has the type {str(kind)[:80]!r}; this server reads only text",
            code="unsupported_content",
            param=place,
        )
    return {"type": "text", "text": part.get("text")}


def join_parts(parts: Any, place: str) -> str:
    """The text of a reasoning item."""
    if not isinstance(parts, list):
        return ""
    texts = [convert_part(part, place)["text"] for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(400, f"{place}: the text of a part must be a string", param=place)
    return "\n".join(texts)


def need(item: Mapping[str, Any], name: str, place: str) -> Any:
    """A field of an item.

    Raises:
        ApiError: it is missing.
    """
    if item.get(name) is None:
        where = f"{place}.{name}"
        raise ApiError(
            400,
            f"Missing required parameter: '{where}'.",
            code="missing_required_parameter",
            param=where,
        )
    return item[name]
