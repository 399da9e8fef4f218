"""`oss-lab harmony render` and `parse`: Harmony, gpt-oss's chat format, for other programs.

Both commands take one or more files and print one line of JSON per file, in ASCII. If there is only
one file and it fails, the command fails. If one of several files fails, its line is
`{"error": ...}` and the next file follows. What a rendering loses is reported on stderr. Neither
command imports torch.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tiktoken
from typer import Argument, Option, Typer

from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.cli._warnings import print_warning, report_warnings
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
from oss_lab.harmony.messages import CHANNELS
from oss_lab.harmony.notices import warn
from oss_lab.harmony.policy import Mode, PolicyName
from oss_lab.harmony.render import Layout
from oss_lab.tokenizer import VocabularyName, load_vocabulary

Files = Annotated[list[Path], Argument(metavar="F.json")]
Vocabulary = Annotated[VocabularyName, Option()]
OPTIONS = ("mode", "auto_drop_analysis", "next_turn_role", "conversation_has_function_tools")
RenderFormat = Literal["ids", "text", "annotated"]

app = Typer(short_help="Render conversations and parse token streams.")


@app.command("render", short_help="Render conversations to token ids.")
def render_files(
    files: Files,
    vocabulary: Vocabulary = "o200k_harmony",
    policy: Annotated[PolicyName, Option(help="which earlier reasoning to drop")] = "library",
    layout: Annotated[Layout, Option(help="position of the recipient in a header")] = "library",
    mode: Annotated[Mode | None, Option(help="default: from the file, else completion")] = None,
    keep_analysis: Annotated[bool, Option("--keep-analysis", help="keep all reasoning")] = False,
    format: RenderFormat = "ids",
) -> int:
    """Each file contains {'conversation': {'messages': [...]}, 'options': {...}}."""
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
            help="reject a malformed stream (default with --library) or recover",
        ),
    ] = None,
    library: Annotated[
        bool, Option("--library", help="reproduce the parser of openai-harmony 0.0.8")
    ] = False,
    format: Annotated[
        Literal["steps", "events"], Option(help="the state after each token, or events")
    ] = "steps",
) -> int:
    """Each file contains {'role': 'assistant' or null, 'tokens': [ids]}.

    Optional: 'recipients' (the declared tools) and 'channels' (those that must be used).
    """
    if library and format == "events":
        raise LabError("--format events does not work with --library: leave one of them out")
    tool = partial(parse_file, strict=strict, library=library, events=format == "events")
    return for_each_file(files, vocabulary, tool)


def for_each_file(
    files: list[Path], vocabulary: VocabularyName, tool: Callable[[Any, tiktoken.Encoding], Any]
) -> int:
    """Print the result of `tool` for each file and return 0; raises if the only file fails."""
    contents: list[Any] = []
    for path in files:
        try:
            with prefix_errors(path):
                contents.append(read_json(path))
        except LabError as error:
            if len(files) == 1:
                raise
            contents.append(error)
    try:
        encoding = load_vocabulary(vocabulary)
    except VocabularyError as error:
        raise VocabularyError(f"{error}; --vocabulary nano needs no file") from None
    for path, content in zip(files, contents, strict=True):
        try:
            if isinstance(content, LabError):
                raise content
            note = partial(print_warning, prefix=f"{path}: ")
            with prefix_errors(path), report_warnings(note):
                value = tool(content, encoding)
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


def _names(data: dict[str, Any], key: str, default: Sequence[str] | None) -> Sequence[str] | None:
    names = _field(data, key, list, default)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise HarmonyError(f"`{key}` must be a list of strings")
    return names


def render_file(
    data: Any,
    encoding: tiktoken.Encoding,
    *,
    mode: Mode | None,
    policy: PolicyName,
    layout: Layout,
    format: RenderFormat,
) -> Any:
    """Render one conversation in the given format."""
    if not isinstance(data, dict) or "conversation" not in data:
        raise HarmonyError("expected an object with `conversation` (and `options`)")
    options = _field(data, "options", dict, {})
    warn(f"there is no option {key!r}; it is left out" for key in options if key not in OPTIONS)
    wanted = mode or _field(options, "mode", str, "completion")
    drop = _field(options, "auto_drop_analysis", bool, True)
    mentioned = _field(options, "conversation_has_function_tools", bool, False)
    rendered = render(
        conversation_from_dict(data["conversation"]),
        encoding,
        mode=wanted,
        policy=policy if drop else "keep",
        layout=layout,
        next_role=_field(options, "next_turn_role", str, "assistant"),
        function_tools=mentioned if wanted == "message" else None,
    )
    warn(rendered.warnings)
    if format == "text":
        return rendered.text
    return rendered.tokens if format == "ids" else annotate(rendered)


def annotate(rendered: Rendered) -> list[dict[str, Any]]:
    """One object per token: text, message, field, span of characters there, whether it has loss."""
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
    """Parse one stream with either parser; the result includes errors in the stream."""
    if not isinstance(data, dict) or "tokens" not in data:
        raise HarmonyError("expected an object with `tokens` (and `role`)")
    tokens = data["tokens"]
    if not isinstance(tokens, list):
        raise HarmonyError(f"`tokens` must be a list of integers, not {type(tokens).__name__}")
    for i, token in enumerate(tokens):
        if type(token) is not int:  # a bool is an int to Python
            raise HarmonyError(f"`tokens` must be integers, but tokens[{i}] is {json.dumps(token)}")
    role = _field(data, "role", str, None)
    recipients, channels = _names(data, "recipients", None), _names(data, "channels", CHANNELS)
    if library:
        return list_library_steps(LibraryParser(encoding, role, strict is not False), tokens)
    parser = StreamParser(
        encoding, role, bool(strict), recipients=recipients, channels=channels or ()
    )
    return list_events(parser, tokens) if events else list_steps(parser, tokens)


def list_library_steps(parser: LibraryParser, tokens: list[int]) -> dict[str, Any]:
    """The library parser's state after each token and after the end of the stream (`eos`)."""

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


def list_steps(parser: StreamParser, tokens: list[int]) -> dict[str, Any]:
    """The same for StreamParser; `error` is the first diagnostic of a token.

    Strict parsing ends with the step of the first error; `eos` is then null unless it is that step.
    """

    def step(action: Callable[[], list[Event]]) -> dict[str, Any]:
        try:
            events = action()
        except HarmonyError:  # strict
            events = parser.diagnostics[:1]
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

    steps = list[dict[str, Any]]()
    for token in tokens:
        steps.append(step(lambda token=token: parser.feed(token)))
        if parser.strict and parser.diagnostics:
            return {"steps": steps, "eos": None, "messages": _plain(parser.messages)}
    eos = step(parser.finish)
    return {"steps": steps, "eos": eos, "messages": _plain(parser.messages)}


def list_events(parser: StreamParser, tokens: list[int]) -> dict[str, Any]:
    """The events. Strict parsing stops at the first error, which becomes the last event."""
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
