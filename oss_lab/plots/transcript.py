"""A reply as the model wrote it: every token, Harmony's own included, grouped by channel.

A channel has its name, a color at the edge and its number of tokens. Tokens with a probability
below SURE are underlined, with their probability as hover text. A list below the reply has every
token's probability; it opens by key and by touch. The prompt and the alternative tokens are not
shown. The HTML is short, because notebooks store it: a certain token has no element.
"""

import math
from collections.abc import Sequence
from html import escape

import tiktoken

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Passage
from oss_lab.plots.style import CHANNELS, plural
from oss_lab.plots.tokens import make_visible
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel, group_by_message, label_token_ids

SURE = 0.9
Pair = tuple[TokenLabel, Token]


@check_arguments
def transcript(reply: Reply, encoding: tiktoken.Encoding) -> Passage:
    """The reply by channel. Its sentence counts the tokens and names the least certain one."""
    labels = label_token_ids(encoding, reply.ids, "assistant")
    pairs = list(zip(labels, reply.tokens, strict=True))
    blocks = [_block(part.name, pairs[part.start : part.end]) for part in group_by_message(labels)]
    sentence = _sentence(reply, pairs)
    legend = (
        f'<div style="font-size:85%;opacity:0.85">{escape(sentence)}<br>'
        f"<u>underlined</u>: the token's probability was below {SURE:.0%}"
        f"<details><summary>Every token's probability</summary>{_list(pairs)}</details></div>"
    )
    return Passage("".join(blocks) + legend, sentence)


def _list(pairs: Sequence[Pair]) -> str:
    """Each token with its probability; the columns follow the width."""
    items = (
        f"<li>{escape(make_visible(label.text))} · {_describe(token)}" for label, token in pairs
    )
    return f'<ol style="columns:14em">{"".join(items)}</ol>'


def _block(name: str, pairs: Sequence[Pair]) -> str:
    style = CHANNELS.get(name, CHANNELS["format"])
    count = sum(label.part == "content" for label, _ in pairs)
    text = "".join(_span(label, token) for label, token in pairs)
    return (
        f'<div style="border-left:6px solid {style.color};padding-left:10px;margin:8px 0">'
        f"<b>{escape(name)}</b> · {plural(count, 'token')}"
        f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere;margin:2px 0">{text}</pre></div>'
    )


def _describe(token: Token) -> str:
    """The token's probability, or where it comes from."""
    probability = math.exp(token.logprob)
    if math.isnan(probability):
        return "given, not generated"
    text = f"{probability:.1%}".replace(".0%", "%")
    return f"{text}, inserted by the budget" if token.forced else text


def _span(label: TokenLabel, token: Token) -> str:
    shown = escape(make_visible(label.text))
    if label.part == "format":
        shown = f'<span style="opacity:0.75">{shown}</span>'
    if math.exp(token.logprob) < SURE:
        shown = f'<u title="{_describe(token)}">{shown}</u>'
    return shown + ("\n" if label.text.endswith("\n") else "")


def _sentence(reply: Reply, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "The reply has no tokens."
    counts = [
        plural(count, f"{name} token")
        for name in ("analysis", "commentary", "final")
        if (count := sum(label.channel == name and label.part == "content" for label, _ in pairs))
    ]
    parts = [
        f"{', '.join(counts) or 'No content'}; {plural(len(pairs), 'token')} with those of Harmony"
    ]
    if known := [pair for pair in pairs if not math.isnan(pair[1].logprob)]:
        label, token = min(known, key=lambda pair: pair[1].logprob)
        least = f"“{make_visible(label.text)}” ({math.exp(token.logprob):.0%})"
        parts.append(f"least certain token: {least}")
    if reply.stop == "length":
        parts.append("cut off at the token limit")
    if reply.diagnostics:
        parts.append(plural(len(reply.diagnostics), "format error"))
    return "; ".join(parts) + "."
