"""What a view shows without a kernel: a transcript or a table, as escaped HTML and one sentence.

A saved notebook holds it, and GitHub and nbconvert show it. It never computes what takes long: an
analysis is in it once it was requested.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

import tiktoken

from oss_lab.errors import shorten
from oss_lab.plots import Passage, transcript
from oss_lab.plots.style import plural
from oss_lab.plots.tokens import make_visible
from oss_lab.record.reply import Reply

LONGEST = 200  # rows of a table


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
    return Passage(
        f"<p><b>{escape(title)}</b></p>{before}", f"{title}: {sentences}".strip().rstrip()
    )


def vars_of(tool: Any) -> Mapping[str, Any]:
    """The name and description of a tool."""
    return {"name": tool.name, "description": tool.description}


def show_sentence(sentence: str) -> Passage:
    """A sentence instead of a picture."""
    return Passage(f"<p><b>{escape(sentence)}</b></p>", sentence)


def show_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Passage:
    """A table; its sentence is the caption. Rows after LONGEST are left out, and it says so."""
    left = len(rows) - LONGEST
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(show_value(cell))}</td>" for cell in row) + "</tr>"
        for row in rows[:LONGEST]
    )
    more = f"<p>{plural(left, 'more row')} not shown.</p>" if left > 0 else ""
    html = (
        f"<p>{escape(caption)}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{more}"
    )
    return Passage(html, caption)


def show_value(value: Any) -> str:
    """A cell: a number with three digits, a text with its invisible characters."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else make_visible(str(value))


def join(parts: Sequence[Passage]) -> Passage:
    """Passages one after the other."""
    return Passage("".join(part.html for part in parts), " ".join(part.sentence for part in parts))
