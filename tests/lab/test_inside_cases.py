"""Cases that once went wrong here or in other implementations: non-finite numbers, models that use
all their experts, equal router logits, streams read twice."""

import json
import math
import time
from dataclasses import replace

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab import BanExpert, Hook, UseNextBest, read_trace
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.cli.main import main
from oss_lab.engine.choice import Engines
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.points import ALWAYS
from oss_lab.lab import Lab
from oss_lab.model import Recorder
from oss_lab.record.diff import compare_traces


@pytest.fixture
def broken(random_model, tiny_config, tiny):
    """A lab whose last norm contains a NaN."""
    model = random_model(replace(tiny_config, vocab_size=288))
    model.norm.scale[3] = math.nan
    return Lab(model, tiny, GREEDY)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 0}, {"alternatives": 2}])
def test_logits_that_are_not_finite_end_a_generation(broken, options):
    sentence = "^the logits contain NaN; the weights or an intervention caused it$"
    with pytest.raises(LabError, match=sentence):
        broken.chat("x", **options)
    with pytest.raises(LabError, match=sentence):
        broken.generate("x", **options)
    with pytest.raises(LabError, match=r"^the logits of row 0 contain NaN"):
        broken.chat_batch(["x", "y"], **options)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_logit_of_a_banned_id_invalidates_probabilities_too(nano, value):
    (unusable, *_) = (~nano.usable).nonzero()[:, 0].tolist()
    ids = torch.arange(nano.config.vocab_size)
    broken = Hook("out.logits", lambda x, here: x.masked_fill(ids == unusable, value))
    with pytest.raises(LabError, match="the logits contain NaN"):
        nano.chat("x", max_tokens=2, interventions=[broken])


def test_logits_that_are_not_finite_are_neither_scored_nor_differentiated(broken):
    for call in (lambda: broken.patch("x", "y"), lambda: broken.gradients("x", 20)):
        with pytest.raises(LabError, match="the weights or an intervention caused it"):
            call()


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--temperature", "1"], ["--raw"]])
def test_the_command_reports_non_finite_logits_in_one_sentence(
    broken, monkeypatch, capsys, arguments
):
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: broken)
    assert main(["generate", "x", *arguments]) == 1
    output = capsys.readouterr()
    assert output.out.strip() == ""
    assert (
        output.err == "oss-lab: the logits contain NaN; the weights or an intervention caused it\n"
    )


def test_numbers_in_json_are_numbers(nano, monkeypatch, capsys):
    """In a reply with a given beginning, the given tokens have no probability."""
    monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: nano)
    assert main(["generate", "What is 3 * 4?", "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def all_experts(random_model, tiny_config, tiny):
    """A lab with a model that uses all of its experts for every token."""
    config = replace(tiny_config, vocab_size=288, experts_per_token=tiny_config.num_experts)
    return Lab(random_model(config), tiny, GREEDY)


def test_if_every_expert_is_chosen_the_margin_is_infinite(all_experts, tmp_path):
    trace = all_experts.trace("x", ALWAYS)
    assert torch.isinf(trace["moe.margin", 0]).all()
    assert trace["moe.expert_ids", 1].sort().values.tolist() == [[0, 1, 2, 3]] * len(trace.tokens)
    trace.save(tmp_path / "run.safetensors")
    assert list(compare_traces(trace, read_trace(tmp_path / "run.safetensors"))) == []


def test_if_every_expert_is_chosen_there_is_no_next_best(all_experts):
    sentence = "this model uses all of its 4 experts for every token, so there is no next best"
    with pytest.raises(LabError, match=sentence):
        all_experts.chat("x", interventions=[UseNextBest(layer=0, slot=0)])
    with pytest.raises(LabError, match=sentence):
        counterfactuals(all_experts, [5, 6, 7], 1)


def test_if_all_others_are_banned_there_is_no_next_best(nano):
    with (
        nano.intervene(BanExpert(layer=1, expert=range(4, 32))),
        pytest.raises(LabError, match=r"every expert of layer 1 that was not chosen is banned"),
    ):
        counterfactuals(nano, [5, 6, 7], 1)


def test_equal_router_logits_are_ordered_alike_by_both_engines(random_model, tiny_config):
    """Ordered as torch.topk orders them on a CPU, which transformers uses. A router of zeros has
    only equal logits; one with repeated rows has some."""
    model = random_model(replace(tiny_config, num_experts=32, experts_per_token=4))
    ids = torch.randint(96, (1, 64), generator=torch.Generator().manual_seed(0))
    engines = Engines(model, load_backend("cpu"))
    for repeat in (32, 4, 2):
        for block in model.block:
            rows = block.mlp.gate.weight[: 32 // repeat]
            block.mlp.gate.weight.copy_(rows.repeat(repeat, 1))
            block.mlp.gate.bias.zero_()
        seen = []
        for engine in (engines.reference, engines.main):
            watch = Recorder({"moe.router_logits", "moe.expert_ids"})
            engine.forward(ids, hooks=watch)
            seen.append(watch.seen)
        for layer in range(2):
            ((logits,), (reference,)) = (
                seen[0][name, layer] for name in ("moe.router_logits", "moe.expert_ids")
            )
            (kernels,) = seen[1]["moe.expert_ids", layer]
            assert torch.equal(kernels, reference.int())
            assert torch.equal(reference, logits.topk(4).indices)


def test_a_streams_time_starts_when_it_is_read(nano):
    stream = nano.stream("What is 3 * 4?", max_tokens=5)
    time.sleep(0.4)
    list(stream)
    assert 0 < stream.reply.timing.first_token < 0.3


def test_a_stream_is_read_once_and_to_its_end(nano):
    stream = nano.stream("What is 3 * 4?", max_tokens=5)
    with pytest.raises(LabError, match=r"^the reply is not complete: read the stream to its end"):
        _ = stream.reply
    next(iter(stream))
    with pytest.raises(LabError, match=r"^the reply is not complete"):
        _ = stream.reply
    with pytest.raises(LabError, match=r"^this stream was already read"):
        list(stream)
    whole = nano.stream("What is 3 * 4?", max_tokens=5)
    assert whole.read() is whole.reply
    with pytest.raises(LabError, match=r"^this stream was already read; its reply is in `.reply`"):
        iter(whole)


def test_kernels_and_reference_read_the_same_logits(random_model, tiny_config):
    engines = Engines(random_model(tiny_config), load_backend("cpu"))
    requests = [Request((1, 2, 3)), Request(tuple(range(40)))]
    for mine, theirs in zip(
        *(read_logits(engine, requests) for engine in (engines.reference, engines.main)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
