"""The proof passes for nano, and fails if something is wrong."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import oss_lab.proof.run as proof
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.hooks.points import POINTS
from oss_lab.proof.__main__ import main, print_tables
from oss_lab.proof.compare import compare, compare_choice
from oss_lab.proof.numpy_forward import numpy_forward
from oss_lab.proof.settings import LONG, Setting
from oss_lab.proof.transformers_forward import ABSENT, DERIVED, HOOK_PLACES
from oss_lab.proof.transformers_model import is_transformers_installed, load_transformers_model


@pytest.fixture(scope="module")
def nano():
    """Its checkpoint, and the weights as the independent forward pass reads them."""
    checkpoint = find_checkpoint("nano")
    return checkpoint, proof.read_numpy_weights(checkpoint)


def test_the_command_reports_how_much_passed(monkeypatch, capsys):
    monkeypatch.setattr("oss_lab.proof.settings.QUICK", (40,))
    monkeypatch.setattr(sys, "argv", ["proof", "--quick"])
    assert main() == 0
    *table, last = capsys.readouterr().out.splitlines()
    passed = int(last.split()[0])
    assert last == f"{passed} passed, 0 failed"
    assert passed > (475 if is_transformers_installed() else 350)
    assert all(any(line.startswith(name) for line in table) for name in POINTS)
    assert max(map(len, table)) <= 80  # case D10
    assert "float32, reference kernels, compared with NumPy" in table


def test_d10_progress_is_on_stderr_and_only_if_it_takes_long(monkeypatch, capsys):
    monkeypatch.setattr("oss_lab.proof.settings.QUICK", (5,))
    monkeypatch.setattr(proof, "is_transformers_installed", lambda: False)
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.setattr(sys, "argv", ["proof", "--quick"])
    monkeypatch.setattr("oss_lab.progress.DELAY", 1e-4)
    assert main() == 0
    slow = capsys.readouterr()
    assert slow.err.startswith("compared 0 of ")
    assert " settings so far\n" in slow.err
    monkeypatch.setattr("oss_lab.progress.DELAY", 600)
    assert main() == 0
    assert capsys.readouterr() == (slow.out, "")


def test_d10_a_narrow_terminal_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    print_tables([])
    assert "These tables need 80 columns; this terminal has 60." in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    print_tables([])
    assert "terminal" not in capsys.readouterr().out


def test_d10_a_bad_name_for_the_json_is_refused_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["proof", "--json", str(tmp_path)])
    monkeypatch.setattr("oss_lab.proof.__main__.prove", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match="is a folder; --json needs the name of a file"):
        main()


@pytest.mark.slow
def test_the_command_as_a_program_at_both_lengths():
    done = subprocess.run(
        [sys.executable, "-m", "oss_lab.proof", "--quick"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0]) > (
        950 if is_transformers_installed() else 700
    )


FAULTS = {
    "no sink": {"attn.sinks": lambda w: w - 30},
    "norm scale": {"mlp.norm.scale": lambda w: w * 1.02},
    "query bias": {"attn.qkv.bias": lambda w: w * 0.98},
    "router bias": {"mlp.gate.bias": lambda w: w + np.arange(len(w)) * 1e-2},
    "expert bias": {"mlp.mlp2_bias": lambda w: w * 0.9},
    "scale of four bits": {"mlp.mlp1_weight.scales": lambda w: w + 1},
    "nibbles swapped": {"mlp.mlp1_weight.blocks": lambda w: (w << 4) | (w >> 4)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_weights_is_detected(nano, fault):
    checkpoint, weights = nano
    wrong = dict(weights)
    for name, change in FAULTS[fault].items():
        wrong[f"block.1.{name}"] = change(weights[f"block.1.{name}"])
    found = proof.prove_one(checkpoint, wrong, Setting(40, "float32", "reference"))
    assert found.failed
    assert all(each.passed for each in found.comparisons if each.layer == 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 31},
        {"layer_types": ("full_attention",) * 4},
        {"initial_context_length": 128},
        {"rope_scaling_factor": 31.0},
        {"swiglu_alpha": 1.7},
        {"rms_norm_eps": 1e-3},
    ],
    ids=str,
)
def test_a_fault_in_the_architecture_is_detected(nano, monkeypatch, changes):
    checkpoint, weights = nano
    other = replace(checkpoint.config, **changes)
    monkeypatch.setattr(proof, "numpy_forward", lambda _, *rest: numpy_forward(other, *rest))
    found = proof.prove_one(checkpoint, weights, Setting(40, "float32", "reference"))
    assert found.failed


def test_bfloat16_stays_within_its_bound_and_a_missing_sink_does_not(nano):
    checkpoint, weights = nano
    setting = Setting(140, "bfloat16", "reference")
    assert not proof.prove_one(checkpoint, weights, setting).failed
    sinks = {f"block.{n}.attn.sinks": weights[f"block.{n}.attn.sinks"] - 30 for n in range(4)}
    found = proof.prove_one(checkpoint, weights | sinks, setting)
    assert any(each.point == "attn.pattern" and not each.passed for each in found.comparisons)


def test_a_comparison_is_strict_about_nan():
    rows = np.ones((3, 2))
    assert compare("embed", None, rows, rows, 0.0).passed
    hidden = rows.copy()
    hidden[1, 1] = -np.inf
    assert compare("attn.scores", 0, hidden, hidden, 0.0).passed
    assert not compare("attn.scores", 0, rows, hidden, 1e9).passed
    assert not compare("embed", None, rows * np.nan, rows, 1e9).passed
    assert not compare("embed", None, rows[:2], rows, 1e9).passed


def test_a_choice_is_correct_up_to_a_near_tie():
    logits = np.array([[3.0, 2.0, 1.999, -1.0]])
    for chosen, right in (([0, 1], True), ([0, 2], True), ([1, 0], False), ([0, 3], False)):
        found = compare_choice("moe.expert_ids", 0, np.array([chosen]), logits, 0.01)
        assert found.passed == right
    assert not compare_choice("moe.expert_ids", 0, np.array([[0, 0]]), logits, 9.0).passed


BESIDE = Setting(140, "float32", "reference", "transformers")


@pytest.fixture(scope="module")
def theirs(nano):
    pytest.importorskip("transformers", reason="transformers is not installed")
    return load_transformers_model(nano[0], torch.float32)


def test_transformers_computes_the_same_at_every_point_that_it_has(nano, theirs):
    found = proof.prove_against_transformers(nano[0], theirs, BESIDE)
    assert not found.failed
    assert {each.point for each in found.comparisons} == set(POINTS) - set(ABSENT)
    assert not set(HOOK_PLACES) & set(DERIVED)
    assert set(HOOK_PLACES) | set(DERIVED) == set(POINTS) - set(ABSENT)


def sink(model):
    return model.model.layers[1].self_attn.sinks, "data", lambda sinks: sinks + 0.1


def norm(model):
    return model.model.layers[1].post_attention_layernorm.weight, "data", lambda scale: scale * 1.02


def slope(model):
    return model.model.layers[1].mlp.experts, "alpha", lambda alpha: alpha - 0.1


@pytest.mark.parametrize(
    ("fault", "first"),
    [(sink, "attn.sink"), (norm, "moe.norm"), (slope, "moe.expert_out")],
    ids=["sink", "norm", "slope"],
)
def test_a_fault_in_transformers_is_located(nano, theirs, monkeypatch, fault, first):
    of, name, change = fault(theirs)
    monkeypatch.setattr(of, name, change(getattr(of, name)))
    found = proof.prove_against_transformers(nano[0], theirs, BESIDE)
    failed = [each for each in found.comparisons if not each.passed]
    assert min(each.layer for each in failed if each.layer is not None) == 1
    assert next(each.point for each in failed if each.layer == 1) == first
    assert {"resid.post", "out.logits"} <= {each.point for each in failed}


def test_a_window_that_is_off_by_one_in_transformers_is_detected(nano, theirs, monkeypatch):
    monkeypatch.setattr(theirs.config, "sliding_window", theirs.config.sliding_window - 1)
    found = proof.prove_against_transformers(nano[0], theirs, BESIDE)
    passed = {(each.point, each.layer): each.passed for each in found.comparisons}
    assert passed["attn.k_rot", 0]
    assert not passed["attn.pattern", 0]
    assert not passed["attn.sink_mass", 0]


def test_without_transformers_one_line_says_so_and_the_other_checks_count(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("oss_lab.proof.settings.QUICK", (13,))
    monkeypatch.setattr(sys, "argv", ["proof", "--quick"])
    assert main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    assert (
        "not compared with transformers: transformers is not installed:"
        ' `pip install "oss-lab[test]"` adds it'
    ) in text
    assert "transformers has each point" not in text
    assert last.endswith(" passed, 0 failed")


def test_a_long_sequence_is_compared_without_a_number_for_each_pair(nano):
    long = Setting(LONG, "float32", "reference")
    assert set(POINTS) - set(long.points) == {"attn.scores", "attn.pattern"}
    assert long.bound == pytest.approx(4.097 * Setting(1000, "float32", "reference").bound)
    checkpoint, weights = nano
    tokens = np.arange(40)
    whole = numpy_forward(checkpoint.config, weights, tokens)
    less = numpy_forward(checkpoint.config, weights, tokens, None, long.left_out)
    assert {point for point, _ in whole.keys() - less.keys()} == {"attn.scores", "attn.pattern"}
    assert all(np.array_equal(value, whole[key]) for key, value in less.items())
