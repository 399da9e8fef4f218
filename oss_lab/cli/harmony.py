"""`oss-lab harmony render` and `parse`: the chat format as plain tools for other programs.

One call takes many files. Stdout holds one line of JSON per file and nothing else (ASCII only, so
no text can break a line or a terminal's encoding). If the only file fails, the call fails; one of
several becomes an `{"error": ...}` line, and the next file follows. Neither tool imports torch.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tiktoken
from typer import Argument, Option, Typer

from oss_lab.cli._json import naming, read_json
from oss_lab.errors import HarmonyError, LabError, VocabularyError
from oss_lab.harmony import (
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
from oss_lab.harmony.policy import Mode, PolicyName
from oss_lab.harmony.render import Layout
from oss_lab.tokenizer import VocabularyName, load_vocabulary

Files = Annotated[list[Path], Argument(metavar="F.json")]
Vocabulary = Annotated[VocabularyName, Option()]
RenderFormat = Literal["ids", "text", "annotated"]

app = Typer(short_help="Render conversations, parse token streams.")


@app.command("render", short_help="Render conversations to token ids.")
def render_files(
    files: Files,
    vocabulary: Vocabulary = "o200k_harmony",
    policy: Annotated[PolicyName, Option(help="which old reasoning is left out")] = "library",
    layout: Annotated[Layout, Option(help="the recipient before or after the channel")] = "library",
    mode: Annotated[Mode | None, Option(help="default: the file's, else completion")] = None,
    keep_analysis: Annotated[bool, Option("--keep-analysis", help="drop no reasoning")] = False,
    format: RenderFormat = "ids",
) -> int:
    """Each file holds {'conversation': {'messages': [...]}, 'options': {...}}."""
    policy = "keep" if keep_analysis else policy
    tool = partial(render_file, mode=mode, policy=policy, layout=layout, format=format)
    return for_each_file(files, vocabulary, tool)


@app.command("parse", short_help="Parse token ids to messages.")
def parse_files(
    files: Files,
    vocabulary: Vocabulary = "o200k_harmony",
    strict: Annotated[
        bool | None,
        Option(
            "--strict/--lenient",
            help="refuse what is malformed (default with --library) or recover",
        ),
    ] = None,
    library: Annotated[
        bool, Option("--library", help="openai-harmony 0.0.8's parser, state for state")
    ] = False,
    format: Annotated[
        Literal["steps", "events"], Option(help="the state by token, or our parser's events")
    ] = "steps",
) -> int:
    """Each file holds {'role': 'assistant' or null, 'tokens': [ids]}."""
    if library and format == "events":
        raise LabError("--format events is our own parser's stream: leave --library out")
    tool = partial(parse_file, strict=strict, library=library, events=format == "events")
    return for_each_file(files, vocabulary, tool)


def for_each_file(
    files: list[Path], vocabulary: VocabularyName, tool: Callable[[Any, tiktoken.Encoding], Any]
) -> int:
    """Print what `tool` makes of each file; 0 unless the only file fails (which raises)."""
    try:
        encoding = load_vocabulary(vocabulary)
    except VocabularyError as error:
        raise VocabularyError(f"--vocabulary nano needs no file; {error}") from None
    for path in files:
        try:
            with naming(path):
                value = tool(read_json(path), encoding)
        except LabError as error:
            if len(files) == 1:
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


def render_file(
    data: Any,
    encoding: tiktoken.Encoding,
    *,
    mode: Mode | None,
    policy: PolicyName,
    layout: Layout,
    format: RenderFormat,
) -> Any:
    """Render one conversation, in the requested format."""
    if not isinstance(data, dict) or "conversation" not in data:
        raise HarmonyError("expected an object with `conversation` (and `options`)")
    options = _field(data, "options", dict, {})
    wanted = mode or _field(options, "mode", str, "completion")
    drop = _field(options, "auto_drop_analysis", bool, True)
    mentioned = _field(options, "conversation_has_function_tools", bool, False)
    try:
        rendered = render(
            conversation_from_dict(data["conversation"]),
            encoding,
            mode=wanted,
            policy=policy if drop else "keep",
            layout=layout,
            next_role=_field(options, "next_turn_role", str, "assistant"),
            function_tools=mentioned if wanted == "message" else None,
        )
    except RecursionError:
        raise HarmonyError("a schema is nested too deeply") from None
    if format == "text":
        return rendered.text
    return rendered.tokens if format == "ids" else annotated(rendered)


def annotated(rendered: Rendered) -> list[dict[str, Any]]:
    """One object per token: its text, its message and field, its characters there, loss or not."""
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


def parse_file(
    data: Any,
    encoding: tiktoken.Encoding,
    *,
    strict: bool | None,
    library: bool,
    events: bool,
) -> Any:
    """Parse one stream by either parser; what is wrong with the stream is part of the result."""
    if not isinstance(data, dict) or "tokens" not in data:
        raise HarmonyError("expected an object with `tokens` (and `role`)")
    tokens = data["tokens"]
    if not isinstance(tokens, list):
        raise HarmonyError(f"`tokens` must be a list of integers, not {type(tokens).__name__}")
    for i, token in enumerate(tokens):
        if type(token) is not int:  # a bool is an int to Python
            raise HarmonyError(f"`tokens` must be integers, but tokens[{i}] is {json.dumps(token)}")
    role = _field(data, "role", str, None)
    if library:
        return library_steps(LibraryParser(encoding, role, strict is not False), tokens)
    if events:
        return own_events(StreamParser(encoding, role, bool(strict)), tokens)
    return own_steps(StreamParser(encoding, role), tokens)


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
