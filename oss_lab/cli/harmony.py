"""`oss-lab harmony render` and `parse`: the chat format as plain tools for other programs.

Many files a call, one JSON value a line and nothing else on stdout (ASCII only, so that no text
can break a line or a terminal's encoding). One file that fails is the call's error; among several
it is an `{"error": ...}` line of its own and the rest go on. Both import no torch.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken

from oss_lab.cli._json import naming, read_json
from oss_lab.errors import HarmonyError, LabError, VocabularyError
from oss_lab.harmony import (
    LAYOUTS,
    MODES,
    POLICIES,
    Delta,
    Diagnostic,
    Event,
    LibraryParser,
    Message,
    Rendered,
    StreamParser,
    conversation_from_dict,
    event_to_dict,
    plain_message,
    render,
)
from oss_lab.tokenizer import load_vocabulary


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("harmony", help="render conversations, parse token streams")
    tools = parser.add_subparsers(title="tools", metavar="TOOL", dest="tool", required=True)
    _add_render(tools.add_parser("render", help="conversations -> token ids"))
    _add_parse(tools.add_parser("parse", help="token ids -> messages"))


def _add_render(parser: argparse.ArgumentParser) -> None:
    parser.description = "Each file holds {'conversation': {'messages': [...]}, 'options': {...}}."
    _add_files(parser)
    parser.add_argument(
        "--policy",
        choices=tuple(POLICIES),
        default="library",
        help="which old reasoning is left out (default: library)",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="library",
        help="the assistant's recipient before the channel, or after it (default: library)",
    )
    parser.add_argument(
        "--mode", choices=MODES, help="default: the file's options.mode, else completion"
    )
    parser.add_argument(
        "--keep-analysis",
        action="store_true",
        help="drop nothing, as options.auto_drop_analysis = false does",
    )
    parser.add_argument("--format", choices=("ids", "text", "annotated"), default="ids")
    parser.set_defaults(run=lambda arguments: for_each_file(arguments, render_file))


def _add_parse(parser: argparse.ArgumentParser) -> None:
    parser.description = "Each file holds {'role': 'assistant' or null, 'tokens': [ids]}."
    _add_files(parser)
    strictness = parser.add_mutually_exclusive_group()
    strictness.add_argument(
        "--strict",
        dest="strict",
        action="store_true",
        default=None,
        help="refuse what is malformed (default with --library)",
    )
    strictness.add_argument(
        "--lenient",
        dest="strict",
        action="store_false",
        default=None,
        help="recover from what is malformed (default without --library)",
    )
    parser.add_argument(
        "--library", action="store_true", help="openai-harmony 0.0.8's parser, state for state"
    )
    parser.add_argument(
        "--format",
        choices=("steps", "events"),
        default="steps",
        help="the state after each token, or our own parser's events (default: steps)",
    )
    parser.set_defaults(run=lambda arguments: for_each_file(arguments, parse_file))


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="F.json")
    parser.add_argument("--vocabulary", choices=("o200k_harmony", "nano"), default="o200k_harmony")


FileCommand = Callable[[Any, tiktoken.Encoding, argparse.Namespace], Any]


def for_each_file(arguments: argparse.Namespace, command: FileCommand) -> int:
    """Print what `command` makes of each file; 0 unless the only file fails (which raises)."""
    if getattr(arguments, "library", False) and arguments.format == "events":
        raise LabError("--format events is our own parser's stream: leave --library out")
    try:
        encoding = load_vocabulary(arguments.vocabulary)
    except VocabularyError as error:
        raise VocabularyError(f"--vocabulary nano needs no file; {error}") from None
    for path in arguments.files:
        try:
            with naming(path):
                value = command(read_json(path), encoding, arguments)
        except LabError as error:
            if len(arguments.files) == 1:
                raise
            value = {"error": str(error)}
        print(json.dumps(value))
    return 0


def _field(data: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise HarmonyError(f"`{key}` must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def render_file(data: Any, encoding: tiktoken.Encoding, arguments: argparse.Namespace) -> Any:
    """One rendering, in the format asked for."""
    if not isinstance(data, dict) or "conversation" not in data:
        raise HarmonyError("expected an object with `conversation` (and `options`)")
    options = _field(data, "options", dict, {})
    mode = arguments.mode or _field(options, "mode", str, "completion")
    keep = arguments.keep_analysis or not _field(options, "auto_drop_analysis", bool, True)
    mentioned = _field(options, "conversation_has_function_tools", bool, False)
    try:
        rendered = render(
            conversation_from_dict(data["conversation"]),
            encoding,
            mode=mode,
            policy="keep" if keep else arguments.policy,
            layout=arguments.layout,
            next_role=_field(options, "next_turn_role", str, "assistant"),
            function_tools=mentioned if mode == "message" else None,
        )
    except RecursionError:
        raise HarmonyError("a schema is nested too deeply") from None
    if arguments.format == "text":
        return rendered.text
    return rendered.tokens if arguments.format == "ids" else annotated(rendered)


def annotated(rendered: Rendered) -> list[dict[str, Any]]:
    """One object a token: its text, its message and field, its characters there, loss or not."""
    return [
        {
            "token": token,
            "text": rendered.source(i),
            "message": note.message,
            "field": note.field,
            "span": [note.start, note.end],
            "loss": rendered.loss_mask[i],
        }
        for i, (token, note) in enumerate(zip(rendered.tokens, rendered.annotations, strict=True))
    ]


def parse_file(data: Any, encoding: tiktoken.Encoding, arguments: argparse.Namespace) -> Any:
    """One stream, parsed by either parser; what is wrong with the stream is part of the result."""
    if not isinstance(data, dict) or "tokens" not in data:
        raise HarmonyError("expected an object with `tokens` (and `role`)")
    tokens = data["tokens"]
    if not isinstance(tokens, list):
        raise HarmonyError(f"`tokens` must be a list of integers, not {type(tokens).__name__}")
    for i, token in enumerate(tokens):
        if type(token) is not int:  # a bool is an int to Python
            raise HarmonyError(f"`tokens` must be integers, but tokens[{i}] is {json.dumps(token)}")
    role = _field(data, "role", str, None)
    if arguments.library:
        strict = arguments.strict is not False
        return library_steps(LibraryParser(encoding, role, strict), tokens)
    if arguments.format == "steps":
        return own_steps(StreamParser(encoding, role), tokens)
    return own_events(StreamParser(encoding, role, bool(arguments.strict)), tokens)


def library_steps(parser: LibraryParser, tokens: list[int]) -> dict[str, Any]:
    """The state after each token, and after the end of the stream (`eos`)."""

    def step(action: Callable[[], None]) -> dict[str, Any]:
        error = None
        try:
            action()
        except (HarmonyError, OverflowError) as caught:
            error = {"type": type(caught).__name__, "message": str(caught)}
        return {
            "state": parser.state,
            "role": parser.current_role,
            "channel": parser.current_channel,
            "recipient": parser.current_recipient,
            "content_type": parser.current_content_type,
            "last_content_delta": parser.last_content_delta,
            "error": error,
        }

    steps = [step(lambda token=token: parser.process(token)) for token in tokens]
    eos = step(parser.process_eos)
    return {"steps": steps, "eos": eos, "messages": _plain(parser.messages)}


def own_steps(parser: StreamParser, tokens: list[int]) -> dict[str, Any]:
    """The same for our parser; `error` is the first diagnostic that a token brought."""

    def step(events: list[Event]) -> dict[str, Any]:
        problems = [event for event in events if isinstance(event, Diagnostic)]
        first = problems[0] if problems else None
        return {
            "state": parser.state,
            "role": parser.role,
            "channel": parser.channel,
            "recipient": parser.recipient,
            "content_type": parser.content_type,
            "last_content_delta": "".join(e.text for e in events if isinstance(e, Delta)) or None,
            "error": first and {"type": first.kind, "message": first.message},
        }

    steps = [step(parser.feed(token)) for token in tokens]
    eos = step(parser.finish())
    return {"steps": steps, "eos": eos, "messages": _plain(parser.messages)}


def own_events(parser: StreamParser, tokens: list[int]) -> dict[str, Any]:
    """The events; strict parsing stops at its first error, which is then the last event."""
    events: list[dict[str, Any]] = []
    try:
        for token in tokens:
            events += map(event_to_dict, parser.feed(token))
        events += map(event_to_dict, parser.finish())
    except HarmonyError as error:
        events.append({"event": "error", "message": str(error)})
    return {"events": events, "messages": _plain(parser.messages)}


def _plain(messages: list[Message]) -> list[dict[str, Any]]:
    return [plain_message(message) for message in messages]
