"""What the Chat shows without a kernel: the question, and the messages with their calls."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

import tiktoken

from oss_lab.errors import shorten
from oss_lab.plots import Passage, transcript
from oss_lab.plots.style import plural
from oss_lab.record.reply import Reply
from oss_widgets.sources.exchange import is_call_message
from oss_widgets.sources.messages import AnyRun
from oss_widgets.sources.remote_run import RemoteRun
from oss_widgets.sources.run import Run
from oss_widgets.views.still import join, show_sentence, show_table


def show_run(run: AnyRun) -> Passage:
    """A run of any source."""
    parts = [] if run.request is None else [describe_request(run.request)]
    if isinstance(run, Run):
        if len(run.ids) > run.prompt_length:
            parts.append(join_replies(run.replies, run.calls, run.lab.tokenizer))
    elif isinstance(run, RemoteRun):
        parts += show_messages(run)
    else:
        rows = [[each["channel"], each["text"]] for each in run.list_messages()]
        return show_table(f"{plural(len(rows), 'message')}.", ["channel", "text"], rows)
    if run.stop is None:
        parts.append(show_sentence("This reply is not finished."))
    if run.note is not None:
        parts.append(show_sentence(run.note))
    return join(parts)


def show_messages(run: AnyRun) -> list[Passage]:
    """The messages of a run whose tokens are not known."""
    calls = iter(run.calls)
    return [
        show_call(next(calls)) if is_call_message(each) else show_message(each)
        for each in run.list_messages()
        if each["role"] != "tool"
    ]


def join_replies(
    replies: Sequence[Reply], calls: Sequence[Mapping[str, Any]], encoding: tiktoken.Encoding
) -> Passage:
    """All replies as one passage; each is followed by its calls, as `describe_call` has them."""
    parts, waiting = list[Passage](), iter(calls)
    for reply in replies:
        parts.append(transcript(reply, encoding))
        parts += map(show_call, islice(waiting, len(reply.tool_calls)))
    last = replies[-1]
    if last.open_calls:
        name = last.open_calls[-1].name
        parts.append(
            show_sentence(f"The model called {name}, but there is no output for this call.")
        )
    return join(parts)


def show_message(message: Mapping[str, Any]) -> Passage:
    """A message with the name of its channel."""
    name, text = message["channel"] or message["role"], message["text"]
    html = f'<p><b>{escape(name)}</b></p><pre style="white-space:pre-wrap">{escape(text)}</pre>'
    return Passage(html, f"{name}: {text}")


def show_call(call: Mapping[str, Any]) -> Passage:
    """A call and its output, folded into one line."""
    name, output = str(call["name"]), call["output"]
    shown = "no output" if output is None else output
    facts = [] if call["seconds"] is None else [f"{1000 * call['seconds']:.1f} ms"]
    facts += [each for each in (call["error"], *call["notes"]) if each]
    texts = "".join(
        f"<p>{title}</p><pre><bdi>{escape(text)}</bdi></pre>"
        for title, text in (("Arguments", call["arguments"]), ("Output", shown))
    )
    line = "".join(
        f"{before}<bdi>{escape(shorten(' '.join(text.split()), 60))}</bdi>"
        for before, text in (("", name), (" ", call["arguments"]), (" → ", shown))
    )
    html = (
        f"<details><summary>{line}{escape(''.join(f', {each}' for each in facts))}</summary>"
        f"{texts}</details>"
    )
    return Passage(html, " ".join([f"{name} answers {shown}.", *(f"{each}." for each in facts)]))


def describe_request(request: Mapping[str, Any]) -> Passage:
    """The question with its effort, and what was put before it."""
    effort = request.get("effort")
    title = request["question"] + (f" ({effort} effort)" if effort else "")
    lines = list[tuple[str, str]]()
    if request.get("instructions"):
        lines.append(("Developer", request["instructions"]))
    for tool in request.get("tools") or ():
        plain = tool if isinstance(tool, Mapping) else vars_of(tool)
        lines.append(("Tool", f"{plain['name']}: {plain.get('description') or ''}"))
    for question, answer in request.get("history") or ():
        lines += [("Asked before", question), ("Answered before", answer)]
    html = "<br>".join(f"<b>{label}</b> {escape(text)}" for label, text in lines)
    before = f"<p>{html}</p>" if lines else ""
    sentences = " ".join(f"{label}: {text}" for label, text in lines)
    return Passage(f"<p><b>{escape(title)}</b></p>{before}", f"{title}: {sentences}".strip())


def vars_of(tool: Any) -> Mapping[str, Any]:
    """The name and description of a tool."""
    return {"name": tool.name, "description": tool.description}
