"""The cost of each effort: the tokens of several replies to one question, by channel.

One bar per effort. With `expected`, the label of each bar also shows whether the answer is right.
To measure accuracy over many questions, use `oss-lab eval`.
"""

from collections.abc import Mapping

import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import APART, CHANNELS, GRAY, base, legend_below, plural
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import count_channel_tokens

NAMES = {"format": "Harmony's own tokens"}


@check_arguments
def effort_comparison(
    replies: Mapping[str, Reply], encoding: tiktoken.Encoding, *, expected: str | None = None
) -> Figure:
    """One bar per reply, with its tokens by channel; `replies` is keyed by effort."""
    if not replies:
        raise LabError("there are no replies to compare; give at least one")
    counts = {effort: count_channel_tokens(reply, encoding) for effort, reply in replies.items()}
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
    base(figure, "The same question at each effort", "generated tokens, by channel", 300)
    legend_below(figure, traceorder="normal").update_layout(barmode="stack")
    figure.update_xaxes(title="tokens", range=[0, 1.35 * max(most, 1)])
    figure.update_yaxes(title_text="effort", autorange="reversed", type="category", showgrid=False)
    figure.update_yaxes(ticklabelstandoff=APART)
    parts = [
        f"at {effort} effort the model wrote {plural(counts[effort].total(), 'token')},"
        f" {counts[effort]['analysis']} of them analysis, and {_answer(reply, expected)}"
        for effort, reply in replies.items()
    ]
    return Figure(figure, f"A{'; '.join(parts)[1:]}.")


def _answer(reply: Reply, expected: str | None) -> str:
    if not reply.final:
        return "gave no answer"
    verdict = "" if expected is None else " (right)" if reply.final == expected else " (wrong)"
    return f"answered {make_visible(reply.final)}{verdict}"
