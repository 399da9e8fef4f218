"""Every figure as Chromium draws it: contrast and size of all texts, and nothing collides.

The figures are drawn at the width of a stored picture, on JupyterLab's two backgrounds.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from oss_lab import plots
from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.commitment import CommitmentStep, commitment
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.analysis.statistics.shares import Share
from oss_lab.evaluation.report import Score
from oss_lab.hooks.points import POINTS
from oss_lab.nano.training.log import TrainingStep
from oss_lab.plots import training, training_groups
from oss_lab.plots.direct_and_effect import direct_and_effect
from oss_lab.plots.shares import compare_shares
from oss_lab.plots.style import PICTURE_WIDTH

LEAST_CONTRAST = 4.5
LEAST_SIZE = 10  # pixels
THEMES = {"light": (255, 255, 255), "dark": (17, 17, 17)}  # JupyterLab's backgrounds
TOUCHING = 1.5  # pixels that two boxes may share: boxes are higher than their letters

DRAW = """
async (figure) => {
  const place = document.body.appendChild(document.createElement("div"));
  place.style.width = `${WIDTH}px`;
  await Plotly.newPlot(place, figure.data, figure.layout, figure.config);
  const all = place.getBoundingClientRect();
  const paper = getComputedStyle(place.querySelector(".main-svg"));
  const boxOf = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left - all.left, box.top - all.top, box.right - all.left, box.bottom - all.top];
  };
  const texts = [...place.querySelectorAll("text")]
    .filter((text) => text.textContent.trim() && text.getBoundingClientRect().width > 0)
    .map((text) => {
      const style = getComputedStyle(text);
      return {
        text: text.textContent,
        box: boxOf(text),
        color: style.fill,
        opacity: Number(style.fillOpacity) * Number(style.opacity),
        size: parseFloat(style.fontSize),
        cell: text.parentElement.classList.contains("textpoint"),
      };
    });
  const markers = [...place.querySelectorAll(".points path")].map(boxOf);
  const ticks = [...place.querySelectorAll("[class$='tick'] text")].map((t) => t.textContent);
  const size = [all.width, all.height];
  const found = { texts, markers, ticks, paper: paper.backgroundColor, size };
  place.remove();
  return found;
}
""".replace("WIDTH", str(PICTURE_WIDTH))


def luminance(color) -> float:
    """The relative luminance of WCAG of three numbers from 0 to 255."""
    parts = np.asarray(color) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one, other) -> float:
    """1 for equal colors, 21 for black on white."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def to_rgba(css: str) -> Sequence[float]:
    """rgb(…), rgba(…) or #rrggbb as four numbers."""
    if css.startswith("#"):
        return [int(css[n : n + 2], 16) for n in (1, 3, 5)] + [1]
    parts = [float(part) for part in css.partition("(")[2].rstrip(")").split(",")]
    return parts if len(parts) == 4 else [*parts, 1]


def lay_over(color, opacity: float, ground) -> list[float]:
    """A color as it looks on a ground."""
    pairs = zip(color, ground, strict=True)
    return [opacity * above + (1 - opacity) * below for above, below in pairs]


def make_scores() -> list[Score]:
    rows: Any = [("low", 0.3, 0.0), ("medium", 0.6, 20.0), ("high", 0.85, 40.0)]
    return [
        Score(name, effort, 64, accuracy - n / 10, (accuracy - 0.2, accuracy), tokens * (1 + n))
        for n, name in enumerate(("sum", "product"))
        for effort, accuracy, tokens in rows
    ]


def make_shares() -> plots.Figure:
    shares = {str(n): Share(300 - 60 * n, 300) for n in range(2, 6)}
    series = {"reasoning kept": shares, "reasoning dropped": {**shares, "5": Share(1, 300)}}
    return compare_shares(series, title="Right answers", unit="right", groups="calls")


def make_log() -> list[TrainingStep]:
    groups = {f"plain/task {n}/{e}": 1.0 for n in range(6) for e in ("low", "medium", "high")}
    return [TrainingStep(n, 9 / (n + 1), 1.5, 2.0, 100, 0.5, 0.25, groups) for n in range(40)]


def make_speeds() -> dict[str, Any]:
    row = {"case": "router, 1 token", "share_of_copy": 0.75, "share_of_matrix": 0.1}
    rows = [row | {"model": model} for model in ("20b", "120b")]
    return {
        "date": "2030-01-02T03:04:05+00:00",
        "device": {"name": "A GPU with a rather long name"},
        "limits": {"copy": 1e12, "matrix": 1e14},
        "rows": rows,
    }


def make_steps() -> dict[str, Any]:
    """A result of `python -m oss_lab.bench` with the task "context"."""
    rows = [
        {
            "task": f"step after {tokens:,}",
            "spread": {"median": median, "low": median - 1, "high": median + 2},
            "bytes": 600_000_000 + 4096 * tokens,
            "n": 5,
        }
        for tokens, median in ((0, 30.0), (4096, 31.0), (131_071, 90.0))
    ]
    return {
        "checkpoint": "slice",
        "dtype": "bfloat16",
        "device": {"name": "A CPU with a rather long name", "threads": 2},
        "reading": 20.0,
        "rows": rows,
    }


@pytest.fixture(scope="module")
def reply(nano):
    return nano.chat("What is 58 * 7?", effort="high")


def make_ways(lab) -> dict[str, Any]:
    logits = lab.logits([5, 6, 7], 1)[0]
    return {f"temperature {t}": (logits / t).softmax(-1) for t in (1.0, 0.5, 2.0)}


def make_differences() -> dict[tuple[str, int], float]:
    points = [name for name, point in POINTS.items() if point.is_per_layer][:12]
    return {(point, layer): 0.02 * (layer > 0) for layer in range(4) for point in points}


@pytest.fixture(scope="module")
def figures(nano, reply) -> dict[str, plots.Figure]:
    """Every figure of one reply of nano, with the sizes that the notebooks draw."""
    tokens = plots.label_reply(reply, nano.tokenizer)
    points = ["moe.expert_ids", "moe.expert_weights", "attn.pattern", "attn.sink_mass"]
    trace = nano.trace(reply, points)
    ids, weights, pattern, sink = (trace[point] for point in points)
    first = len(reply.prompt_tokens)
    few = slice(first, first + 28)
    step, encoding = trace.find("=56")[0], nano.tokenizer
    clean, corrupted = ([*trace.tokens[:step], n, *trace.tokens[step:]] for n in (40, 41))
    steps = [CommitmentStep(n, "", str(10**n), -1.0) for n in range(6)]
    found = {
        "effort": plots.effort_comparison({"low": reply, "high": reply}, encoding),
        "experts": plots.expert_map(ids[:, few], weights[:, few], tokens[few]),
        "many experts": plots.expert_map(ids, weights, tokens),
        "load": plots.expert_load(ids, experts=32),
        "attention": plots.attention(
            pattern, sink, tokens, nano.config, heads=[(2, 2), (3, 6)], queries=few
        ),
        "one head": plots.attention(pattern, sink, tokens, nano.config, heads=[(3, 6)]),
        "sinks": plots.sink_mass(sink, nano.config),
        "effects": plots.expert_effects(counterfactuals(nano, trace.tokens, step), encoding),
        "logit": plots.logit_parts(attribution(nano, trace.tokens, step, 5, 6), encoding),
        "lens": plots.logit_lens(nano.lens(reply, range(first + 2, first + 26)), encoding),
        "short lens": plots.logit_lens(nano.lens(reply, range(first, first + 3)), encoding),
        "patching": plots.patching(
            nano.patch(clean, corrupted, point="resid.mid", target=5, against=6),
            encoding,
            plots.label_token_ids(encoding, corrupted),
        ),
        "patched heads": plots.patching(
            nano.patch(clean, corrupted, by="head", target=5, against=6), encoding
        ),
        "commitment": plots.commitment_curve(commitment(nano, reply)),
        "lift": plots.lift({"counted": [(1, "a", 4.0, 3.0, 5.0), (2, "b", 9.5, 1.0, 50.0)]}),
        "differences": plots.differences(make_differences()),
        "direct and effect": direct_and_effect(
            {"heads": [("head 6 of layer 0", -0.26, 9.3)], "choices": [("choice 1", 7.5, 5.0)]}
        ),
        "next token": plots.next_token(make_ways(nano), encoding),
        "crowded commitment": plots.commitment_curve(steps),
        "accuracy": plots.accuracy(make_scores(), make_scores()[:3], "nano"),
        "shares": make_shares(),
        "kernels": plots.kernel_speed(make_speeds()),
        "context": plots.context_cost(make_steps()),
        "loss": training.training_loss(make_log()),
        "routing": training.routing(make_log()),
        "norm": training.gradient_norm(make_log(), clip=1.0),
        "speed": training.speed(make_log()),
        "tasks": training_groups.task_losses(make_log()),
    }
    return found


@pytest.fixture(scope="module")
def drawn(figures, chromium) -> dict[str, dict[str, Any]]:
    """What Chromium drew for each figure: texts with box, color and size; boxes of markers."""
    page = chromium.new_page(viewport={"width": PICTURE_WIDTH + 40, "height": 900})
    page.add_script_tag(content=get_plotlyjs())
    return {name: page.evaluate(DRAW, figure.json()) for name, figure in figures.items()}


def overlap(one, other) -> bool:
    """Whether two boxes [left, top, right, bottom] share more than TOUCHING in both directions."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > TOUCHING and high > TOUCHING


@pytest.mark.parametrize("theme", THEMES)
def test_all_texts_outside_cells_have_contrast_in_both_themes(drawn, theme):
    for name, figure in drawn.items():
        *paper, opacity = to_rgba(figure["paper"])
        ground = lay_over(paper, opacity, THEMES[theme])
        for text in figure["texts"]:
            if not text["cell"]:
                *color, alpha = to_rgba(text["color"])
                seen = lay_over(color, alpha * text["opacity"], ground)
                assert contrast(seen, ground) >= LEAST_CONTRAST, (name, text)


def test_all_texts_in_cells_have_contrast_with_their_cell(figures):
    counted = 0
    for name, figure in figures.items():
        heats = {}
        for trace in figure.plotly.data:
            if trace["type"] == "heatmap" and trace["colorscale"] is not None:
                heats[trace["xaxis"]] = trace
            elif trace["type"] == "scatter" and trace["mode"] == "text":
                ink = to_rgba(trace["textfont"]["color"])[:3]
                for color in cell_colors(heats[trace["xaxis"]], trace):
                    assert contrast(ink, color) >= LEAST_CONTRAST, (name, ink, color)
                    counted += 1
    assert counted > 500


def cell_colors(heat: Any, text: Any) -> list[Any]:
    """The color of the cell below each text, from the z and the color scale of its heat map."""
    stops, colors = zip(*heat["colorscale"], strict=True)
    parts = np.array([to_rgba(color)[:3] for color in colors]).T
    z = np.asarray(heat["z"], np.float64)
    rows, columns = (
        list(map(int, at)) if names is None else [list(names).index(each) for each in at]
        for at, names in ((text["y"], heat["y"]), (text["x"], heat["x"]))
    )
    share = np.clip((z[rows, columns] - heat["zmin"]) / (heat["zmax"] - heat["zmin"]), 0, 1)
    return np.stack([np.interp(share, stops, part) for part in parts], axis=-1).tolist()


def test_all_texts_are_large_enough(drawn):
    for name, figure in drawn.items():
        for text in figure["texts"]:
            assert text["size"] >= LEAST_SIZE, (name, text)


def test_no_text_collides_with_another_or_leaves_the_figure(drawn):
    for name, figure in drawn.items():
        width, height = figure["size"]
        for text in figure["texts"]:
            left, top, right, bottom = text["box"]
            assert min(left, top) >= -TOUCHING, (name, text)
            assert (right, bottom) <= (width + TOUCHING, height + TOUCHING), (name, text)
        for one, other in combinations(figure["texts"], 2):
            assert not overlap(one["box"], other["box"]), (name, one["text"], other["text"])


def test_the_forced_answers_are_away_from_markers_and_the_axis(drawn):
    for name in ("commitment", "crowded commitment"):
        assert drawn[name]["markers"]
        for text in drawn[name]["texts"]:
            assert not any(overlap(text["box"], box) for box in drawn[name]["markers"]), text
    shown = [text["text"] for text in drawn["commitment"]["texts"]]
    assert "446" in shown
    assert "406" in shown


def test_attention_labels_the_effort_word_and_both_axes(drawn, figures):
    for name in ("attention", "one head"):
        assert "␣high" in drawn[name]["ticks"]
        assert drawn[name]["ticks"].count("sink") == len(figures[name].plotly.data) // 3


def test_tokens_in_the_cells_of_the_lens_are_whole(figures):
    for name in ("lens", "short lens"):
        heat, *texts = figures[name].plotly.data
        shown = [str(word) for text in texts for word in text["customdata"]]
        assert sorted(shown) == sorted(np.asarray(heat["customdata"]).ravel().tolist())
        assert not any("…" in word for word in shown)


@pytest.mark.parametrize(("theme", "ink"), [("light", (33, 33, 33)), ("dark", (255, 255, 255))])
def test_faint_text_of_a_transcript_has_contrast_in_both_themes(nano, reply, theme, ink):
    """`ink` is JupyterLab's color of text."""
    found = re.findall(r"opacity:([0-9.]+)", plots.transcript(reply, nano.tokenizer).html)
    assert len(set(found)) == 2
    for opacity in map(float, found):
        seen = lay_over(ink, opacity, THEMES[theme])
        assert contrast(seen, THEMES[theme]) >= LEAST_CONTRAST


def test_lines_have_contrast_with_the_paper(figures):
    for name, figure in figures.items():
        for trace in figure.plotly.select_traces(selector={"type": "scatter"}):
            if "lines" in trace["mode"] and trace["line"]["width"] != 1:
                color = to_rgba(trace["line"]["color"])[:3]
                assert contrast(color, (255, 255, 255)) >= 3, (name, trace["name"])


def test_one_outlier_leaves_the_other_values_their_colors(nano):
    found = attribution(nano, [1, 2, 3, 4, 5], 3, 5)
    heads, slots = found.heads / found.heads.abs().max(), found.slots * 0
    slots[3, 0] = 50.0
    figure = plots.logit_parts(replace(found, heads=heads, slots=slots), nano.tokenizer)
    maps: list[Any] = list(figure.plotly.select_traces(selector={"type": "heatmap"}))
    assert maps[0].zmax == maps[1].zmax == 5
    assert maps[1].colorbar.title.text == "logit<br>colors end at ±5"
    texts: list[Any] = list(figure.plotly.select_traces(selector={"mode": "text"}))
    cells = [word for text in texts for word in text.customdata]
    assert "+50.00" in cells
