"""No public function answers a wrong value with a raw exception: it works, or one sentence says why
not. Each case is a call that works; every argument is replaced by every wrong value in turn."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oss_lab
from oss_lab import plots
from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.branch import Tree
from oss_lab.analysis.commitment import commitment
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.analysis.effort import effort_lens
from oss_lab.analysis.gradients import Target, gradient, integrated_gradients
from oss_lab.analysis.probe import probe
from oss_lab.analysis.reach import earliest_positions, find_routes, influence
from oss_lab.analysis.routing.atlas import atlas
from oss_lab.analysis.routing.baselines import predictability
from oss_lab.analysis.routing.coactivation import coactivation
from oss_lab.analysis.routing.corpus import build_routing_corpus
from oss_lab.analysis.routing.paths import find_neighbors
from oss_lab.analysis.sinks.report import sink_report
from oss_lab.errors import LabError
from oss_lab.model import no_hooks
from oss_lab.record.diff import compare_traces
from oss_lab.record.evidence.file import read_evidence

WRONG: dict[str, Any] = {
    "None": None,
    "negative": -1,
    "fraction": 2.5,
    "NaN": math.nan,
    "huge": 10**30,
    "word": "x",
    "no text": "",
    "bytes": b"x",
    "dictionary": {},
    "boolean": True,
    "object": object(),
    "fractions": np.array([1.5, 2.5]),
    "three axes": np.zeros((2, 2, 2), int),
    "tensor": torch.zeros(2, 3),
    "negatives": [-1],
    "mixed": [1, "x", None],
    "set": {1, 2},
    "complex": 1j,
    "function": lambda: 0,
}
COUNTS = ("shuffles", "resamples", "pairs", "steps", "experts")  # a huge one only takes long
QUESTION = "What is 3 * 4?"
POINTS = [
    "resid.post", "moe.expert_ids", "moe.expert_weights", "moe.margin",
    "attn.sink_mass", "attn.pattern",
]  # fmt: skip

Case = tuple[Callable[..., object], dict[str, Any]]


@pytest.fixture(scope="module")
def cases(nano, tmp_path_factory) -> dict[str, Case]:
    """For each name a function, and arguments that work."""
    lab, folder = nano, tmp_path_factory.mktemp("wrong")
    ids = lab.tokens_of(QUESTION)[-12:]
    other = [*ids[:3], (ids[3] + 1) % 600, *ids[4:]]
    reply = lab.chat(QUESTION, effort="high", max_tokens=48)
    trace, second = lab.trace(ids, POINTS), lab.trace(other, POINTS)
    trace.save(folder / "saved.safetensors")
    labels, steps = plots.label_token_ids(lab.tokenizer, ids), commitment(lab, reply)
    corpus, tree = build_routing_corpus([trace, second], 32), Tree(lab, ids)
    ones, tokens = torch.ones(96), torch.tensor([ids])
    numbered = (folder / f"{n}" for n in range(10**6))
    sampling = {"temperature": 0.0, "top_k": None, "top_p": 1.0, "min_p": 0.0, "seed": None}
    record = {"points": (), "interventions": (), "alternatives": 0, "continue_from": None}
    said = {"effort": "low", "instructions": None, "tools": (), "date": None}
    parts = {"layers": None, "heads": None, "positions": None, "channels": None}
    limits = {"stop": (), "max_tokens": 2, "sampling": None}
    at, writes = {"layer": 0, "positions": None}, {"layer": 0, "point": "resid.post"}
    of = {"lab": lab, "of": ids}
    shown = {"encoding": lab.tokenizer}
    return {
        "load": (oss_lab.load, {
            "name": "nano", "dtype": "float32", "device": "cpu", "kernels": "reference",
            "expert_cache_bytes": 2**20, "download": False, "verbose": False}),
        "read_trace": (oss_lab.read_trace, {"path": folder / "saved.safetensors"}),
        "read_evidence": (read_evidence, {"folder": None}),
        "chat": (lab.chat, {"question": QUESTION, **said, **sampling, **record, **limits,
                            "analysis_budget": None}),
        "generate": (lab.generate, {"text": "ab", **sampling, **record, **limits}),
        "chat_batch": (lab.chat_batch, {"questions": [QUESTION], "draws": None, "max_tokens": 2}),
        "stream": (lambda **given: lab.stream(**given).read(),
                   {"question": QUESTION, "max_tokens": 2}),
        "write_turns": (lambda **given: list(lab.write_turns(**given)), {
            "sequences": [ids], "max_tokens": 2, "sampling": oss_lab.Sampling(temperature=0.0),
            "alternatives": 0}),
        "trace": (lab.trace, {"of": ids, "points": ["embed"], **parts, "interventions": (),
                              "budget": 2**30}),
        "trace of text": (lab.trace, {"of": QUESTION, "points": ["embed"], **said, "raw": False}),
        "trace_batch": (lab.trace_batch, {"of": [ids], "points": ["embed"], "budget": 2**30}),
        "plan": (lab.plan, {"of": ids, "points": ["embed"], **parts}),
        "logits": (lab.logits, {"of": ids, "last": 1, "interventions": ()}),
        "logits_batch": (lab.logits_batch, {"of": [ids], "last": 1}),
        "collect": (lambda **given: lab.collect(**{"out": next(numbered)} | given), {
            "prompts": [ids], "points": ["embed"], "layers": None, "channels": None,
            "tokens_each": None, "seed": 0, "budget": 2**30}),
        "lens": (lab.lens, {"of": ids, "positions": [3], "target": None, "top": 5}),
        "patch": (lab.patch, {"clean": ids, "corrupted": other, "metric": None, "point": None,
                              "by": "head", "target": 5, "against": 6}),
        "gradients": (lab.gradients, {"of": ids, "target": 5, "points": ("embed",),
                                      "layers": None}),
        "intervene": (lambda x: lab.intervene(x), {"x": oss_lab.AblateHead(layer=0, head=3)}),
        "tokens_of": (lab.tokens_of, {"of": ids}),
        "conversation": (lab.conversation, {"question": QUESTION, **said}),
        "Sampling": (oss_lab.Sampling, sampling),
        "model": (lab.model, {"tokens": tokens, "last": 1, "hooks": no_hooks}),
        "Trace.tensor": (trace.tensor, {"point": "resid.post", "layer": 0}),
        "Trace.find": (trace.find, {"text": "4"}),
        "Trace of a point": (lambda key: trace[key], {"key": "resid.post"}),
        "Trace of a layer": (lambda point, layer: trace[point, layer], {
            "point": "resid.post", "layer": 0}),
        "Trace.layers_of": (trace.layers_of, {"point": "resid.post"}),
        "Trace.to_pandas": (trace.to_pandas, {"point": "moe.margin"}),
        "Trace.save": (trace.save, {"path": folder / "again.safetensors"}),
        "compare_traces": (lambda **given: list(compare_traces(**given)),
                           {"a": trace, "b": second, "tolerance": 0.0}),
        "attribution": (attribution, {**of, "position": 3, "token": 5, "against": None}),
        "counterfactuals": (counterfactuals, {**of, "position": 3, "target": None}),
        "gradient": (gradient, {**of, "target": Target(3, 5), "point": "embed", "layer": None}),
        "Target": (lambda **given: gradient(lab, ids, Target(**given)),
                   {"position": 3, "token": 5, "against": None, "of": "logit"}),
        "integrated_gradients": (integrated_gradients, {
            **of, "target": Target(3, 5), "point": "embed", "layer": None, "baseline": None,
            "steps": 1, "experts": "free"}),
        "Tree": (Tree, of),
        "Tree.branch": (tree.branch, {"node": tree.root, "at": 3, "write": "9", "sampling": None,
                                      "max_tokens": 1, "alternatives": 0}),
        "Tree.trace": (tree.trace, {"node": tree.root, "points": ["embed"], "first": None}),
        "Tree.compare": (tree.compare, {"a": tree.root, "b": tree.root, "points": ["embed"],
                                        "tolerance": 0.0}),
        "Tree.reply": (tree.reply, {"node": None}),
        "commitment": (commitment, {"lab": lab, "reply": None}),
        "effort_lens": (effort_lens, {"lab": None, "question": QUESTION, "max_tokens": 2}),
        "influence": (influence, {**of, "source": 9, "target": 11, "instead": None, "cut": ()}),
        "find_routes": (find_routes, {"config": lab.config, "source": 1, "target": 3, "cut": ()}),
        "earliest_positions": (earliest_positions, {"config": lab.config, "target": 3, "cut": ()}),
        "probe": (probe, {"lab": lab, "sequences": [ids[:4]] * 2, "labels": [[*"aabb"]] * 2,
                          "point": "resid.post", "layers": [0], "shuffles": 0, "seed": 0}),
        "corpus": (build_routing_corpus, {"traces": [trace], "experts": 32, "groups": None}),
        "atlas": (atlas, {"corpus": corpus, "top": 2, "minimum": 2, "resamples": 2, "seed": 0}),
        "find_neighbors": (find_neighbors, {"corpus": corpus, "sequence": 0, "position": 3,
                                            "count": 3, "pairs": 9, "seed": 0}),
        "predictability": (predictability, {"corpus": corpus, "resamples": 2, "shuffles": 1,
                                            "seed": 0}),
        "coactivation": (coactivation, {"corpus": None, "resamples": 2, "seed": 0}),
        "sink_report": (sink_report, {"config": lab.config, "traces": None, "seed": 0}),
        "AblateHead": (oss_lab.AblateHead, {**at, "head": 3}),
        "ScaleHead": (oss_lab.ScaleHead, {**at, "head": 3, "by": 0.5}),
        "SetSink": (oss_lab.SetSink, {"layer": 0, "head": 0, "to": 0.0}),
        "ForceExpert": (oss_lab.ForceExpert, {**at, "expert": 3, "slot": 0}),
        "HideKeys": (oss_lab.HideKeys, {"layer": 0, "keys": [1], "first_query": 3}),
        "NarrowWindow": (oss_lab.NarrowWindow, {"layer": 0, "keys": 3}),
        "AddVector": (oss_lab.AddVector, {**writes, "vector": ones, "by": 1.0}),
        "Patch": (oss_lab.Patch, {**writes, "positions": [1], "values": ones[None]}),
        "Patch.from_trace": (oss_lab.Patch.from_trace, {**writes, "trace": trace, "onto": {1: 2}}),
        "Hook": (oss_lab.Hook, {**writes, "fn": lambda x, here: x, "channels": None}),
        "transcript": (plots.transcript, {**shown, "reply": reply}),
        "label_reply": (plots.label_reply, {**shown, "reply": reply}),
        "label_token_ids": (plots.label_token_ids, {**shown, "ids": ids, "role": None}),
        "effort_comparison": (plots.effort_comparison, {**shown, "replies": {"low": reply},
                                                        "expected": None}),
        "expert_map": (plots.expert_map, {
            "expert_ids": trace["moe.expert_ids"], "expert_weights": trace["moe.expert_weights"],
            "tokens": labels}),
        "expert_load": (plots.expert_load, {"expert_ids": trace["moe.expert_ids"], "experts": 32}),
        "attention": (plots.attention, {
            "pattern": trace["attn.pattern"], "sink_mass": trace["attn.sink_mass"],
            "tokens": labels, "config": lab.config, "heads": [(0, 1)], "queries": slice(None)}),
        "sink_mass": (plots.sink_mass, {"mass": trace["attn.sink_mass"], "config": lab.config}),
        "expert_effects": (plots.expert_effects, {**shown, "found": counterfactuals(lab, ids, 3)}),
        "logit_parts": (plots.logit_parts, {**shown, "found": attribution(lab, ids, 3, 5)}),
        "logit_lens": (plots.logit_lens, {**shown, "found": lab.lens(ids)}),
        "patching": (plots.patching, {
            **shown, "found": lab.patch(ids, other, target=5, against=6), "tokens": labels}),
        "commitment_curve": (plots.commitment_curve, {"steps": steps}),
        "accuracy": (plots.accuracy, {"rows": [], "totals": [], "model": "x"}),
        "kernel_speed": (plots.kernel_speed, {"found": {}}),
    }  # fmt: skip


NAMES = """
load, read_trace, read_evidence, chat, generate, chat_batch, stream, write_turns, trace,
trace of text, trace_batch, plan, logits, logits_batch, collect, lens, patch, gradients, intervene,
tokens_of, conversation, Sampling, model, Trace.tensor, Trace.find, Trace of a point,
Trace of a layer,
Trace.layers_of, Trace.to_pandas, Trace.save, compare_traces, attribution, counterfactuals,
gradient, Target, integrated_gradients, Tree, Tree.branch, Tree.trace, Tree.compare, Tree.reply,
commitment, effort_lens, influence, find_routes, earliest_positions, probe, corpus, atlas,
find_neighbors, predictability, coactivation, sink_report, AblateHead, ScaleHead, SetSink,
ForceExpert, HideKeys, NarrowWindow, AddVector, Patch, Patch.from_trace, Hook, transcript,
label_reply, label_token_ids, effort_comparison, expert_map, expert_load, attention, sink_mass,
expert_effects, logit_parts, logit_lens, patching, commitment_curve, accuracy, kernel_speed
"""
NAMES = [" ".join(name.split()) for name in NAMES.split(",")]
REFUSED = {  # the call of the case itself is refused, because what works would take long
    "read_evidence", "Tree.reply", "commitment", "effort_lens", "coactivation", "sink_report",
    "accuracy", "kernel_speed",
}  # fmt: skip


def test_every_case_is_tested(cases):
    assert list(cases) == NAMES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_gets_one_sentence(cases, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # "x" is a path
    call, good = cases[name]
    if name in REFUSED:
        with pytest.raises(LabError):
            call(**good)
    else:
        call(**good)
    found = [
        (f"{argument}={kind}", find_error(call, good | {argument: value}))
        for argument in good
        for kind, value in WRONG.items()
        if not (kind == "huge" and argument in COUNTS)
    ]
    raw = [f"{what}: {error!r}" for what, error in found if error and type(error) is not str]
    assert not raw, "\n".join(raw)
    sentences = [error for _, error in found if type(error) is str]
    assert sentences
    assert not [each for each in sentences if "\n" in each or each.endswith(".")]


def find_error(call: Callable[..., object], given: dict[str, Any]) -> Exception | str | None:
    """The sentence of a LabError, any other exception, or None."""
    try:
        call(**given)
    except LabError as error:
        return str(error)
    except Exception as error:
        return error
    return None
