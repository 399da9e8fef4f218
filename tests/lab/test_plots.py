"""Figures of a trace from hand-made data: the drawing, the sentence, and the size of the JSON."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray

from oss_lab import plots
from oss_lab.config import GPT_OSS_NANO
from oss_lab.errors import LabError
from oss_lab.plots.figure import JSON_LIMIT, PLOTLY
from oss_lab.record.token_labels import TokenLabel

SCRIPT = "<script>alert(1)</script>"
WIDE = 60  # tokens in the size tests, of all four layers and eight heads of nano


def labels(*texts):
    return [TokenLabel(text, 0, "assistant", "analysis", None, "content") for text in texts]


def figure_json(figure):
    """The figure's JSON, as a front end gets it."""
    return figure._repr_mimebundle_()[PLOTLY]


# Experts


def routing(layers=2, seq=3, slots=4, experts=32, seed=0):
    draw = np.random.default_rng(seed)
    ids = np.stack([[draw.permutation(experts)[:slots] for _ in range(seq)] for _ in range(layers)])
    weights = -np.sort(-draw.dirichlet(np.ones(slots), (layers, seq)), axis=-1)
    return ids, weights


def decode(array):
    """Plotly's base64 of small integers, decoded to an array."""
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
    return flat.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else flat


def test_expert_map_has_a_row_for_every_choice():
    ids = np.array([[[7, 1], [7, 2]], [[3, 0], [0, 3]]])
    weights = np.array([[[0.75, 0.25], [0.5, 0.5]], [[1.0, 0.0], [0.75, 0.25]]])
    figure = plots.expert_map(ids, weights, labels("a", "\n"))
    heat, *_ = figure_json(figure)["data"]
    assert decode(heat["text"]).tolist() == [[7, 7], [1, 2], [3, 0], [0, 3]]
    assert decode(heat["z"]).tolist() == [[75, 50], [25, 50], [100, 75], [0, 25]]
    layout = figure_json(figure)["layout"]
    assert layout["yaxis"]["ticktext"] == ["0 · 1st", "0 · 2nd", "1 · 1st", "1 · 2nd"]
    assert layout["xaxis"]["ticktext"] == ["a", "↵"]
    assert layout["xaxis"]["title"]["text"] == "token"
    assert layout["yaxis"]["title"]["text"] == "layer · choice"
    assert heat["colorbar"]["title"]["text"] == "weight, %"
    assert figure.sentence == (
        "2 tokens, 2 experts in each of 2 layers: the first choice has 75% of the weight on"
        " average, and the layers use 3, 2 different experts for 4 choices each."
    )


def test_expert_map_separates_the_messages():
    tokens = [
        TokenLabel("a", 0, "user"),
        TokenLabel("b", 1, "assistant", "final"),
    ]
    layout = figure_json(plots.expert_map(*routing(1, 2), tokens))["layout"]
    assert [note["text"] for note in layout["annotations"]] == ["user", "final"]
    assert [line["x0"] for line in layout["shapes"]] == [0.5]


def test_expert_map_of_one_token_of_none_and_of_too_many():
    assert plots.expert_map(*routing(1, 1), labels("a")).sentence.startswith("1 token, ")
    with pytest.raises(LabError, match="no tokens"):
        plots.expert_map(np.zeros((2, 0, 4)), np.zeros((2, 0, 4)), [])
    with pytest.raises(LabError, match="2 token labels for 3 positions"):
        plots.expert_map(*routing(), labels("a", "b"))
    many = 3000
    with pytest.raises(LabError, match=r"limit of 50,000; give it fewer tokens"):
        plots.expert_map(*routing(4, many), labels(*["a"] * many))


def test_expert_load_counts_tokens():
    ids = np.array([[[7, 1], [7, 2], [7, 0], [1, 0]]])
    figure = plots.expert_load(ids, experts=8)
    heat, *_ = figure_json(figure)["data"]
    assert decode(heat["z"]).tolist() == [[50, 50, 25, 0, 0, 0, 0, 75]]
    layout = figure_json(figure)["layout"]
    assert layout["xaxis"]["title"]["text"] == "expert"
    assert layout["yaxis"]["title"]["text"] == "layer"
    assert figure.sentence == (
        "The busiest expert is expert 7 of layer 0, chosen by 75% of 4 tokens (25.0% if all were"
        " used equally); 4 of 8 experts were not used."
    )
    assert "of 1 token (" in plots.expert_load(ids[:, :1], experts=8).sentence
    with pytest.raises(LabError, match="no tokens"):
        plots.expert_load(ids[:, :0], experts=8)


# Attention


def make_attention(layers=2, heads=2, seq=6, window=None, seed=0):
    """Patterns and sinks that sum to one. Layer 0 is sliding if there is a window."""
    raw = np.random.default_rng(seed).random((layers, heads, seq, seq + 1))
    distance = np.arange(seq)[:, None] - np.arange(seq)
    for layer in range(layers):
        hidden = distance < 0
        if window is not None and layer % 2 == 0:
            hidden = hidden | (distance >= window)
        raw[layer][:, :, :-1][:, hidden] = 0
    shares = raw / raw.sum(-1, keepdims=True)
    return shares[..., :-1], shares[..., -1]


@pytest.fixture
def sliding():
    """nano's configuration with a window of three."""
    return replace(GPT_OSS_NANO, num_hidden_layers=2, layer_types=(), sliding_window=3)


def test_attention_draws_sink_pattern_and_what_is_hidden(sliding):
    pattern, sink = make_attention(window=3)
    tokens = labels(*"abcdef")
    figure = plots.attention(pattern, sink, tokens, sliding, heads=[(0, 1), (1, 0)])
    data = figure_json(figure)["data"]
    kinds = ["heatmap", "heatmap", "scatter", "scatter", "heatmap", "heatmap", "scatter"]
    assert [trace["type"] for trace in data] == kinds  # a full layer hides only the future
    assert decode(data[0]["z"])[:, 0].tolist() == np.rint(100 * sink[0, 1]).tolist()
    assert decode(data[1]["z"]).tolist() == np.rint(100 * pattern[0, 1]).tolist()
    layout = figure_json(figure)["layout"]
    assert layout["xaxis3"]["title"]["text"] == "attended token (key)"
    assert layout["yaxis"]["title"]["text"] == "attending token (query)"
    assert layout["yaxis"]["ticktext"] == list("abcdef")
    assert layout["coloraxis"]["colorbar"]["title"]["text"] == "attention, %"
    names = [note["text"] for note in layout["annotations"]]
    assert "layer 0, head 1 (sliding, 3 keys)" in names
    assert "layer 1, head 0 (full)" in names


def test_attention_gives_each_of_many_panels_its_own_axes(sliding):
    pattern, sink = make_attention(window=3)
    figure = plots.attention(pattern, sink, labels(*"abcdef"), sliding, heads=[(1, 0)] * 6)
    heatmaps = [trace for trace in figure_json(figure)["data"] if trace["type"] == "heatmap"]
    assert len({trace["xaxis"] for trace in heatmaps}) == len(heatmaps) == 12


def test_attention_reports_how_far_a_head_looks(sliding):
    pattern, sink = np.zeros((2, 1, 6, 6)), np.full((2, 1, 6), 0.25)
    for row in range(6):
        pattern[0, 0, row, max(0, row - 2)] += 0.75
        pattern[1, 0, row, 0] += 0.75
    figure = plots.attention(pattern, sink, labels(*"abcdef"), sliding, heads=[(0, 0), (1, 0)])
    assert figure.sentence == (
        "Layer 0, head 0 (sliding, 3 keys): the sink takes 25% of the attention on average, and the"
        " farthest token that gets at least 1% is 2 positions back; layer 1, head 0 (full): the"
        " sink takes 25% of the attention on average, and the farthest token that gets at least 1%"
        " is 5 positions back."
    )


def test_attention_of_some_queries_leaves_out_what_none_of_them_sees(sliding):
    pattern, sink = make_attention(window=3)
    figure = plots.attention(
        pattern, sink, labels(*"abcdef"), sliding, heads=[(0, 0)], queries=slice(3, 5)
    )
    heat = figure_json(figure)["data"][1]
    assert heat["x0"] == 1  # query 3 sees keys 1, 2 and 3
    assert decode(heat["z"]).tolist() == np.rint(100 * pattern[0, 0, 3:5, 1:5]).tolist()
    assert figure_json(figure)["layout"]["yaxis"]["ticktext"] == ["d", "e"]


def test_attention_stripes_exactly_what_is_hidden(sliding):
    """The edges of the stripes are between the last hidden key and the first visible one."""
    pattern, sink = make_attention(window=3)
    figure = plots.attention(pattern, sink, labels(*"abcdef"), sliding, heads=[(0, 0)])
    stripes = [trace for trace in figure_json(figure)["data"] if trace["type"] == "scatter"]
    future, past = ((decode(stripe["x"]), decode(stripe["y"])) for stripe in stripes)
    for row in range(6):
        keys = np.flatnonzero(pattern[0, 0, row])
        assert (future[0][row + 1], future[1][row + 1]) == (keys[-1] + 0.5, row)
        assert (past[0][row + 1], past[1][row + 1]) == (keys[0] - 0.5, row)


def test_attention_of_one_token_and_of_none(sliding):
    one = plots.attention(*make_attention(seq=1), labels("a"), sliding, heads=[(0, 0)])
    assert "is 0 positions back" in one.sentence
    with pytest.raises(LabError, match="no tokens"):
        plots.attention(*make_attention(seq=0), [], sliding, heads=[(0, 0)])
    with pytest.raises(LabError, match=r"at least one \(layer, head\)"):
        plots.attention(*make_attention(), labels(*"abcdef"), sliding, heads=[])
    with pytest.raises(LabError, match="choose some from 0 to 5"):
        plots.attention(
            *make_attention(), labels(*"abcdef"), sliding, heads=[(0, 0)], queries=slice(6, 9)
        )


def test_named_axes_may_come_in_any_order(sliding):
    pattern, sink = make_attention(window=3)
    tokens, heads = labels(*"abcdef"), [(1, 0)]
    plain = plots.attention(pattern, sink, tokens, sliding, heads=heads)
    axes, layers = ("layer", "head", "seq", "key"), {"layer": range(len(pattern))}
    named = xarray.DataArray(pattern, layers, axes).transpose("layer", "seq", "head", "key")
    sinks = xarray.DataArray(sink, layers, axes[:3]).transpose("layer", "seq", "head")
    assert figure_json(plots.attention(named, sinks, tokens, sliding, heads=heads)) == figure_json(
        plain
    )
    part = plots.attention(named[1:], sinks[1:], tokens, sliding, heads=heads)
    assert figure_json(part) == figure_json(plain)


def test_sink_mass_averages_over_positions(sliding):
    mass = np.array([[[0.25, 0.65], [0.0, 0.0]], [[0.5, 1.0], [0.25, 0.25]]])
    figure = plots.sink_mass(mass, sliding)
    heat, *_ = figure_json(figure)["data"]
    assert decode(heat["z"]).tolist() == [[45, 0], [75, 25]]
    layout = figure_json(figure)["layout"]
    assert layout["xaxis"]["title"]["text"] == "head"
    assert layout["yaxis"]["ticktext"] == ["0, sliding", "1, full"]
    assert heat["colorbar"]["title"]["text"] == "mean share, %"
    assert figure.sentence == (
        "The sinks take 36% of all attention on average: at most 75% (layer 1, head 0) and at least"
        " 0%."
    )
    with pytest.raises(LabError, match="no tokens"):
        plots.sink_mass(mass[:, :, :0], sliding)


# All figures


@pytest.fixture
def all_figures():
    """Every plotly figure at nano's size, its tokens a script."""
    tokens = labels(*[SCRIPT] * WIDE)
    ids, weights = routing(4, WIDE)
    pattern, sink = make_attention(4, 8, WIDE, window=32)
    heads = [(0, 0), (1, 0)]
    return [
        plots.expert_map(ids, weights, tokens),
        plots.expert_load(ids, experts=32),
        plots.attention(pattern, sink, tokens, GPT_OSS_NANO, heads=heads),
        plots.sink_mass(sink, GPT_OSS_NANO),
    ]


def test_every_figure_is_small_titled_on_white_and_one_sentence(all_figures):
    for figure in all_figures:
        bundle = figure._repr_mimebundle_()
        assert set(bundle) == {PLOTLY, "text/plain"}
        assert bundle["text/plain"] == figure.sentence
        assert re.fullmatch(r"[^\n]+\.", figure.sentence)
        assert str(figure).replace("\n", " ") == figure.sentence
        text = json.dumps(bundle[PLOTLY])
        assert len(text) <= JSON_LIMIT
        assert "<script" not in text
        layout = bundle[PLOTLY]["layout"]
        assert layout["title"]["text"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "#ffffff"


def test_the_table_has_every_value_of_every_figure(all_figures, sliding):
    for figure in all_figures:
        for (_, rows), heat in zip(
            figure.table().parts,
            figure.plotly.select_traces(selector={"type": "heatmap"}),
            strict=True,
        ):
            numbers = [[cell.split("(")[-1].rstrip(")") for cell in row[1:]] for row in rows[1:]]
            assert np.array_equal(np.array(numbers, float), heat.z)
        assert SCRIPT not in figure.table().html
        assert f"\n\n{figure.table()}".count("\n\n") == len(figure.table().parts)
    pattern, sink = make_attention(window=3)
    tokens = labels(*"abcdef")
    shown = plots.attention(
        pattern, sink, tokens, sliding, heads=[(0, 1)], queries=slice(4, 6)
    ).table()
    names = [rows[0] for _, rows in shown.parts]
    assert names == [["attending token (query)", "sink"], ["attending token (query)", *"cdef"]]
    assert [row[0] for row in shown.parts[1][1][1:]] == ["e", "f"]


def test_the_table_of_bars_and_lines_has_a_row_for_each_point():
    figure = plots.kernel_speed(
        {
            "date": "2030-01-02T03:04:05+00:00",
            "device": {"name": "A CPU", "threads": 2},
            "rows": [{"name": "<b>", "share_of_reading": 0.75, "gigaflops": 0.0}],
        }
    )
    ((name, rows),) = figure.table().parts
    assert name == "memory"
    assert rows == [["share of the measured limit, %", "y"], ["75", "<b>"]]
    assert "<td>&lt;b&gt;</td>" in figure.table().html


def test_numbers_that_do_not_fit_are_left_out_and_the_figure_says_where_they_are():
    wide = plots.expert_map(*routing(1, 60), labels(*["a"] * 60))
    assert not list(wide.plotly.select_traces(selector={"mode": "text"}))
    layout = figure_json(wide)["layout"]
    assert layout["title"]["subtitle"]["text"].endswith(".table() has the numbers")
    assert len(layout["xaxis"]["ticktext"]) == 60  # names of the columns in hover texts
    assert len(layout["xaxis2"]["ticktext"]) == 30


def test_attention_names_marked_keys_and_those_with_the_most_attention(sliding):
    pattern, sink = np.zeros((2, 2, 90, 90)), np.ones((2, 2, 90))
    pattern[1, 0, :, 41] = 0.5
    tokens = labels(*[f"t{n}" for n in range(90)])
    figure = plots.attention(pattern, sink, tokens, sliding, heads=[(1, 0)], marked=[7])
    shown = figure_json(figure)["layout"]["xaxis3"]["ticktext"]
    assert [text for text in shown if "<b>" in text] == ["<b>t7</b>", "<b>t41</b>"]
    assert len(shown) > 20
    with pytest.raises(LabError, match="marked"):
        plots.attention(pattern, sink, tokens, sliding, heads=[(1, 0)], marked=[90])
