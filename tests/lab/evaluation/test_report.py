"""Scores of hand-made outcomes: the numbers, the table, the JSON, the figure and its page."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from oss_lab.analysis.statistics.shares import wilson
from oss_lab.errors import LabError
from oss_lab.evaluation.report import (
    ALL,
    as_json,
    build_overall_scores,
    build_score_table,
    build_scores,
)
from oss_lab.evaluation.run import Outcome
from oss_lab.harmony.messages import Effort
from oss_lab.plots.accuracy import MOST_LINES, accuracy
from oss_lab.plots.figure import PLOTLY
from oss_lab.plots.page import render_page as html_page
from oss_lab.record.reply import Stop

EVIL = "<b>bold</b>\x1b[31m$x$[red]"


def outcome(
    index, name="sums", effort: Effort = "low", right=True, tokens=10, stop: Stop = "return"
):
    return Outcome(index, name, effort, right, "1", tokens, tokens + 5, 0, stop)


MIXED = [
    outcome(3, "products", "high", tokens=100),
    outcome(0, "sums", "low", right=False, tokens=0),
    outcome(2, "products", "low", right=False, tokens=0, stop="call"),
    outcome(1, "sums", "high", tokens=41),
    outcome(0, "sums", "high", right=False, tokens=40, stop="length"),
    outcome(1, "sums", "low", tokens=0),
]


def print_table(scores):
    text = io.StringIO()
    Console(file=text, width=120).print(build_score_table(scores))
    return text.getvalue()


@pytest.mark.parametrize(
    ("right", "n", "interval"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson(right, n, interval):
    assert wilson(right, n) == pytest.approx(interval, abs=5e-5)
    low, high = wilson(n - right, n)
    assert (1 - high, 1 - low) == pytest.approx(interval, abs=5e-5)


def test_scores_by_name_and_effort():
    rows = build_scores(MIXED)
    assert [(row.name, row.effort, row.n, row.accuracy) for row in rows] == [
        ("sums", "low", 2, 0.5),
        ("sums", "high", 2, 0.5),
        ("products", "low", 1, 0.0),
        ("products", "high", 1, 1.0),
    ]
    assert [row.mean_analysis_tokens for row in rows] == [0, 40.5, 0, 100]
    assert [row.cut_off for row in rows] == [0, 1, 0, 0]
    assert [row.calls_unanswered for row in rows] == [0, 0, 1, 0]
    assert rows[0].interval == wilson(1, 2)
    assert build_scores([]) == build_overall_scores([]) == []


def test_overall_counts_every_question_once():
    low, high = build_overall_scores(MIXED)
    assert (low.name, low.effort, low.n, low.accuracy) == (ALL, "low", 3, pytest.approx(1 / 3))
    assert (high.effort, high.accuracy) == ("high", pytest.approx(2 / 3))
    assert high.mean_analysis_tokens == pytest.approx(181 / 3)


def test_json():
    low, high = json.loads(json.dumps(as_json(MIXED)))
    assert list(low)[:5] == ["effort", "accuracy", "interval", "mean_analysis_tokens", "n"]
    assert (low["effort"], low["accuracy"], low["n"]) == ("low", 0.3333, 3)
    assert (low["calls_unanswered"], low["cut_off"], high["cut_off"]) == (1, 0, 1)
    assert high["mean_analysis_tokens"] == 60.3
    assert low["interval"] == [round(bound, 4) for bound in wilson(1, 3)]
    assert [task["name"] for task in high["tasks"]] == ["sums", "products"]
    assert [task["accuracy"] for task in high["tasks"]] == [0.5, 1.0]


def test_malformed_replies_are_counted_by_kind():
    cut = replace(outcome(0), diagnostics={"unfinished_message": 1})
    wrong = replace(outcome(1), diagnostics={"unknown_recipient": 2, "unfinished_message": 1})
    (total,) = json.loads(json.dumps(as_json([cut, wrong, outcome(2)])))
    assert total["malformed"] == 1
    assert total["diagnostics"] == {"unfinished_message": 2, "unknown_recipient": 2}
    assert "replies with format errors: 1" in print_table(build_scores([cut, wrong]))
    assert "format errors" not in print_table(build_scores([cut]))


def test_table():
    text = print_table(build_scores(MIXED))
    assert re.search(r"products +│ high +│ 1 │ +100\.0% │ 20\.7% – 100\.0% │ +100 │ +0 │ +0 ", text)
    assert "cut" in text
    assert "unanswered" in text
    clean = print_table(build_scores([outcome(0)]))
    assert "cut" not in clean
    assert "unanswered" not in clean


def test_names_from_files_are_text_in_the_table():
    text = print_table(build_scores([outcome(0, EVIL)]))
    assert "\x1b" not in text
    assert r"\x1b[31m$x$[red]" in text


def draw_figure(outcomes):
    figure = accuracy(build_scores(outcomes), build_overall_scores(outcomes), "nano")
    return figure, figure._repr_mimebundle_()[PLOTLY]


def test_figure():
    figure, content = draw_figure(MIXED)
    sums, products = content["data"]
    assert (sums["x"], sums["y"], sums["text"]) == ([0, 40.5], [50, 50], ["low", "high"])
    assert (products["x"], products["y"]) == ([0, 100], [0, 100])
    low, high = wilson(1, 1)
    assert products["error_y"]["array"][1] == pytest.approx(100 * (high - 1))
    assert products["error_y"]["arrayminus"][1] == pytest.approx(100 * (1 - low))
    assert sums["line"]["dash"] != products["line"]["dash"]
    layout = content["layout"]
    assert layout["title"]["text"] == "Accuracy against analysis tokens, by effort"
    assert layout["xaxis"]["title"]["text"] == "analysis tokens per question (mean)"
    assert layout["yaxis"]["title"]["text"] == "accuracy, %"
    assert layout["showlegend"] is True
    assert figure.sentence == (
        "Over 3 questions, accuracy is 33.3% (6.1% to 79.2%) at low effort, with 0 analysis tokens"
        " per question; 66.7% (20.8% to 93.9%) at high effort, with 60 analysis tokens per"
        " question."
    )


def test_many_names_are_drawn_as_one_line():
    efforts: tuple[Effort, ...] = ("low", "high")
    subjects = range(MOST_LINES + 1)
    many = [outcome(n, f"subject {n}", effort) for n in subjects for effort in efforts]
    (line,) = draw_figure(many)[1]["data"]
    assert (line["name"], line["text"]) == (ALL, ["low", "high"])
    assert len(draw_figure(many[:-2])[1]["data"]) == MOST_LINES


def test_nothing_to_draw():
    with pytest.raises(LabError, match="no scores to draw"):
        accuracy([], [], "nano")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_page_needs_no_network_and_contains_no_markup_from_files():
    outcomes = [outcome(0, EVIL), outcome(1, "</script><script>alert(1)</script>")]
    figure = accuracy(build_scores(outcomes), build_overall_scores(outcomes), EVIL)
    text = html_page([figure], EVIL)
    page = Page(text)
    assert page.sources == []
    assert figure.sentence in page.text
    assert "alert(1)</script>" not in text
    assert "b" not in page.tags
    assert page.tags.count("title") == 1
