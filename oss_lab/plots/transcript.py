"""A reply as the model wrote it: every token, Harmony's own included, grouped by channel.

A channel has its name, a color at the edge and its count of tokens. Tokens to which the model
gave less than SURE are underlined; each one's probability shows under the mouse. Left out: the
prompt, and the alternatives that were not taken.
"""

import math
from collections.abc import Sequence
from html import escape

import tiktoken

from oss_lab.plots.figure import Passage
from oss_lab.plots.style import CHANNELS, plural
from oss_lab.plots.tokens import visible
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel, sections, token_labels

SURE = 0.9
Pair = tuple[TokenLabel, Token]


def transcript(reply: Reply, encoding: tiktoken.Encoding) -> Passage:
    """The reply by channel; its sentence counts tokens and names the least certain one."""
    labels = token_labels(encoding, reply.ids, "assistant")
    pairs = list(zip(labels, reply.tokens, strict=True))
    blocks = [_block(part.name, pairs[part.start : part.end]) for part in sections(labels)]
    sentence = _sentence(reply, pairs)
    legend = (
        f'<div style="font-size:85%;opacity:0.75">{escape(sentence)}<br>'
        f"<u>underlined</u>: the model gave the token less than {SURE:.0%}; "
        "point at a token for its probability and the natural log of that</div>"
    )
    return Passage("".join(blocks) + legend, sentence)


def _block(name: str, pairs: Sequence[Pair]) -> str:
    style = CHANNELS.get(name, CHANNELS["format"])
    count = sum(label.part == "content" for label, _ in pairs)
    text = "".join(_span(label, token) for label, token in pairs)
    return (
        f'<div style="border-left:6px solid {style.color};padding-left:10px;margin:8px 0">'
        f"<b>{escape(name)}</b> · {plural(count, 'token')}"
        f'<pre style="white-space:pre-wrap;margin:2px 0">{text}</pre></div>'
    )


def _span(label: TokenLabel, token: Token) -> str:
    probability = math.exp(token.logprob)
    title = f"{probability:.1%}, log {token.logprob:.2f}"
    if token.forced:
        title = f"written by the budget; {title}"
    shown = escape(visible(label.text))
    if label.part == "format":
        shown = f'<span style="opacity:0.6">{shown}</span>'
    tag = "u" if probability < SURE else "span"
    broken = "\n" if label.text.endswith("\n") else ""
    return f'<{tag} title="{title}">{shown}</{tag}>{broken}'


def _sentence(reply: Reply, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "The reply has no tokens."
    told = [
        f"{name} {plural(count, 'token')}"
        for name in ("analysis", "commentary", "final")
        if (count := sum(label.channel == name and label.part == "content" for label, _ in pairs))
    ]
    label, token = min(pairs, key=lambda pair: pair[1].logprob)
    parts = [
        f"{', '.join(told) or 'No content'}; {plural(len(pairs), 'token')} in all",
        f"the least certain, “{visible(label.text)}”, had {math.exp(token.logprob):.0%}",
    ]
    if reply.stop == "length":
        parts.append("cut off at the limit")
    if reply.diagnostics:
        parts.append(plural(len(reply.diagnostics), "defect") + " of format")
    return "; ".join(parts) + "."
