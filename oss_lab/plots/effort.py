"""What an effort costs: the tokens of several replies to one question, by channel.

One bar an effort. `expected`, where it is known, says beside each bar whether the answer is it;
one question says nothing about accuracy (`oss-lab eval` measures that).
"""

from collections.abc import Mapping

import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import CHANNELS, GRAY, base, legend_below
from oss_lab.plots.tokens import plotly_text, visible
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import channel_counts

NAMES = {"format": "Harmony's own tokens"}


def effort_comparison(
    replies: Mapping[str, Reply], encoding: tiktoken.Encoding, *, expected: str | None = None
) -> Figure:
    """Bars of tokens by channel, one a reply; `replies` is keyed by effort."""
    if not replies:
        raise LabError("there are no replies to compare; give at least one")
    counts = {effort: channel_counts(reply, encoding) for effort, reply in replies.items()}
    efforts = [plotly_text(effort) for effort in replies]
    figure = go.Figure()
    for name, style in CHANNELS.items():
        tokens = [count[name] for count in counts.values()]
        if any(tokens):
            figure.add_bar(
                x=tokens,
                y=efforts,
                orientation="h",
                name=NAMES.get(name, name),
                marker={
                    "color": style.color,
                    "line": {"color": GRAY, "width": 1},
                    "pattern": {
                        "shape": style.pattern,
                        "fillmode": "overlay",
                        "fgcolor": GRAY,
                        "size": 8,
                    },
                },
                hovertemplate="%{y} effort: %{x} tokens<extra>%{fullData.name}</extra>",
            )
    for effort, reply in replies.items():
        figure.add_annotation(
            x=counts[effort].total(),
            y=plotly_text(effort),
            xanchor="left",
            text=" " + plotly_text(_answer(reply, expected)),
            showarrow=False,
        )
    most = max(count.total() for count in counts.values())
    base(figure, "The same question at each effort", "tokens written, by channel", 300)
    legend_below(figure, traceorder="normal").update_layout(barmode="stack")
    figure.update_xaxes(title="tokens", range=[0, 1.35 * max(most, 1)])
    figure.update_yaxes(title="effort", autorange="reversed", type="category", showgrid=False)
    told = [
        f"{effort} effort wrote {counts[effort].total()} tokens, {counts[effort]['analysis']} of"
        f" them analysis, and {_answer(reply, expected)}"
        for effort, reply in replies.items()
    ]
    return Figure(figure, "; ".join(told) + ".")


def _answer(reply: Reply, expected: str | None) -> str:
    if not reply.final:
        return "gave no answer"
    verdict = "" if expected is None else ", right" if reply.final == expected else ", wrong"
    return f"answered {visible(reply.final)}{verdict}"
