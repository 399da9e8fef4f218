"""What the widget shows for a question: its replies as transcripts, and tool outputs between them.

A mistake of the person's is shown as its one sentence. Nothing is run for a call: what is not among
the example's outputs stays unanswered, and the widget says so.
"""

from collections.abc import Mapping, Sequence
from html import escape

import tiktoken

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message
from oss_lab.lab import Lab
from oss_lab.lab.tool_rounds import replies_to
from oss_lab.nano.gallery import Example
from oss_lab.plots import Passage, transcript
from oss_lab.record.reply import Reply

MAX_TOKENS = 512  # of one reply


def answered(lab: Lab, prompt: Conversation, tool_outputs: Mapping[str, str]) -> Passage:
    """The replies to a prompt whose last message is the question."""
    if not prompt.messages[-1].text.strip():
        return sentence_alone("There is no question: write one and press Enter.")
    try:
        replies = replies_to(lab, prompt, tool_outputs, max_tokens=MAX_TOKENS)
    except LabError as error:
        return sentence_alone(str(error))
    return joined(replies, lab.tokenizer)


def joined(replies: Sequence[Reply], encoding: tiktoken.Encoding) -> Passage:
    """One passage of all replies; behind each, the tool outputs that the next one was given."""
    parts = list[Passage]()
    for place, reply in enumerate(replies):
        parts.append(transcript(reply, encoding))
        later = replies[place + 1].prompt if place + 1 < len(replies) else None
        given = () if later is None else later.messages
        parts += map(tool_output, given[len(reply.conversation) :])
    last = replies[-1]
    if last.stop == "call" and last.tool_calls:
        name = last.tool_calls[-1].name
        parts.append(sentence_alone(f"{name} is called, and there is no output for this call."))
    return Passage("".join(part.html for part in parts), " ".join(part.sentence for part in parts))


def tool_output(message: Message) -> Passage:
    """What a tool answered, as the example brought it."""
    name = message.author.name or "the tool"
    html = f"<p><b>{escape(name)}</b> answers <code>{escape(message.text)}</code></p>"
    return Passage(html, f"{name} answers {message.text}.")


def setting(example: Example) -> Passage:
    """What comes before the question in this example, and what the example shows."""
    lines = list[tuple[str, str]]()
    if example.instructions is not None:
        lines.append(("Developer", example.instructions))
    lines += [("Tool", f"{tool.name}: {tool.description}") for tool in example.tools]
    for question, answer in example.history:
        lines += [("Asked before", question), ("Answered before", answer)]
    shown = [f"<b>{label}</b> {escape(text)}" for label, text in lines]
    html = "<br>".join([*shown, f"<i>{escape(example.shows)}</i>"])
    told = [f"{label}: {text}" for label, text in lines]
    return Passage(f"<p>{html}</p>", " ".join([*told, example.shows]))


def sentence_alone(sentence: str) -> Passage:
    """A sentence in place of a reply."""
    return Passage(f"<p><b>{escape(sentence)}</b></p>", sentence)
