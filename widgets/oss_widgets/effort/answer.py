"""What the widget shows for a question: transcripts of the replies, with tool outputs between.

A user's mistake is shown as one sentence. No tool is run: if there is no known output for a call,
the widget says so.
"""

from collections.abc import Mapping, Sequence
from html import escape

import tiktoken

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message
from oss_lab.lab import Lab
from oss_lab.lab.tool_rounds import chat_with_outputs
from oss_lab.nano.gallery import Example
from oss_lab.plots import Passage, transcript
from oss_lab.record.reply import Reply

MAX_TOKENS = 512  # per reply


def build_answer(lab: Lab, prompt: Conversation, tool_outputs: Mapping[str, str]) -> Passage:
    """Generate and show the replies to a prompt; its last message is the question."""
    if not prompt.messages[-1].text.strip():
        return show_sentence("There is no question: write one and press Enter.")
    try:
        replies = chat_with_outputs(lab, prompt, tool_outputs, max_tokens=MAX_TOKENS)
    except LabError as error:
        return show_sentence(str(error))
    return join_replies(replies, lab.tokenizer)


def join_replies(replies: Sequence[Reply], encoding: tiktoken.Encoding) -> Passage:
    """Join all replies into one passage; each is followed by the tool outputs it received."""
    parts = list[Passage]()
    for place, reply in enumerate(replies):
        parts.append(transcript(reply, encoding))
        later = replies[place + 1].prompt if place + 1 < len(replies) else None
        given = () if later is None else later.messages
        parts += map(show_tool_output, given[len(reply.conversation) :])
    last = replies[-1]
    if last.open_calls:
        name = last.open_calls[-1].name
        parts.append(
            show_sentence(f"The model called {name}, but there is no output for this call.")
        )
    return Passage("".join(part.html for part in parts), " ".join(part.sentence for part in parts))


def show_tool_output(message: Message) -> Passage:
    """Show the output of a tool, as given by the example."""
    name = message.author.name or "the tool"
    html = f"<p><b>{escape(name)}</b> answers <code>{escape(message.text)}</code></p>"
    return Passage(html, f"{name} answers {message.text}.")


def describe_setting(example: Example) -> Passage:
    """Show the messages before the example's question, and what the example demonstrates."""
    lines = list[tuple[str, str]]()
    if example.instructions is not None:
        lines.append(("Developer", example.instructions))
    lines += [("Tool", f"{tool.name}: {tool.description}") for tool in example.tools]
    for question, answer in example.history:
        lines += [("Asked before", question), ("Answered before", answer)]
    html_lines = [f"<b>{label}</b> {escape(text)}" for label, text in lines]
    html = "<br>".join([*html_lines, f"<i>{escape(example.shows)}</i>"])
    sentences = [f"{label}: {text}" for label, text in lines]
    return Passage(f"<p>{html}</p>", " ".join([*sentences, example.shows]))


def show_sentence(sentence: str) -> Passage:
    """Show a sentence instead of a reply."""
    return Passage(f"<p><b>{escape(sentence)}</b></p>", sentence)
