"""Figures of the lesson about experts: areas of parameters, and curves of the activation."""

import pytest

from oss_lab.checkpoint.plan import Parameters, count_parameters
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.errors import LabError
from oss_lab.plots.activation import activation_curves
from oss_lab.plots.figure import JSON_LIMIT, PLOTLY
from oss_lab.plots.parameter_areas import parameter_areas


def test_areas_are_proportional_to_parameters():
    half = Parameters(mlp=0, attention=0, norm=0, embedding=0, active=25, total=100)
    figure = parameter_areas({"<b>half": half})
    whole, active = figure.json()["data"]
    assert (whole["width"], whole["y"]) == ([1.0], [1.0])
    assert (active["width"], active["y"]) == ([0.5], [0.5])
    assert active["x"] == [0.25]  # both squares share a corner
    assert figure.json()["layout"]["xaxis"]["ticktext"] == ["&lt;b&gt;half: 25.0%"]
    assert figure.sentence == "<b>half has 100 parameters, of which one token uses 25 (25.0%)."


def test_areas_of_models_are_side_by_side():
    models = {"nano": count_parameters(GPT_OSS_NANO), "20b": count_parameters(GPT_OSS_20B)}
    figure = parameter_areas(models)
    whole, _ = figure.json()["data"]
    assert whole["x"][1] - whole["x"][0] > 1
    assert "20b, active for one token: 3,608,307,264" in repr(figure.table())
    with pytest.raises(LabError, match="no models to draw"):
        parameter_areas({})


def test_activation_curves_name_each_line_and_its_range():
    figure = activation_curves([-1, 0, 1], {"up = 0": [0, 0, 1], "up = 1": [-2, 0, 2]})
    assert figure.sentence == (
        "The output over gates from -1 to 1: with up = 0 from 0.0 to 1.0, with up = 1 from -2.0 to"
        " 2.0."
    )
    lines = figure.json()["data"]
    assert [line["name"] for line in lines] == ["up = 0", "up = 1"]
    assert len({line["line"]["dash"] for line in lines}) == 2
    assert len(str(figure._repr_mimebundle_()[PLOTLY])) < JSON_LIMIT


def test_activation_curves_refuse_what_they_cannot_draw():
    with pytest.raises(LabError, match="a has 2 values and gate has 1"):
        activation_curves([0.0], {"a": [0.0, 1.0]})
    with pytest.raises(LabError, match="expected 1 to 6 lines, got 7"):
        activation_curves([0.0], {str(n): [0.0] for n in range(7)})
    with pytest.raises(LabError, match="NaN"):
        activation_curves([0.0], {"a": [float("nan")]})
