"""Runs the proof in every setting.

Each setting compares a trace with the independent forward pass, which uses the trace's choices of
experts, and checks that recording changes nothing. Then traces are compared with transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from oss_kernels.backends import load_backend as load_kernels

from oss_lab.analysis.tracing import trace_requests
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.choice import EngineChoice, Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Selection
from oss_lab.progress import report_in_lines, track_progress
from oss_lab.proof.compare import Comparison, compare, compare_choice, is_choice
from oss_lab.proof.numpy_forward import Seen, numpy_forward
from oss_lab.proof.settings import SEED, Setting, list_settings, list_transformers_settings
from oss_lab.proof.transformers_forward import transformers_forward
from oss_lab.proof.transformers_model import is_transformers_installed, load_transformers_model
from oss_lab.record.trace import Trace

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Proof:
    """The result of one setting. `identities` are statements that must hold exactly."""

    setting: Setting
    comparisons: tuple[Comparison, ...]
    identities: Mapping[str, bool]

    @property
    def count(self) -> int:
        return len(self.comparisons) + len(self.identities)

    @property
    def failed(self) -> int:
        return sum(not each.passed for each in self.comparisons) + sum(
            not held for held in self.identities.values()
        )


def prove(name: str, *, quick: bool = False) -> list[Proof]:
    """Run all settings on the CPU. Without transformers, those that compare with it are skipped."""
    checkpoint = find_checkpoint(name)
    weights = read_numpy_weights(checkpoint)
    settings = list_settings(quick, CPU)
    if is_transformers_installed():
        settings += list_transformers_settings(quick)
    theirs = None
    proofs: list[Proof] = []
    with report_in_lines(lambda: f"compared {len(proofs)} of {len(settings)} settings so far"):
        for setting in track_progress(settings, "proof", "setting", leave=True):
            if setting.against == "NumPy":
                proofs.append(prove_one(checkpoint, weights, setting))
                continue
            theirs = theirs or load_transformers_model(checkpoint, torch.float32)
            proofs.append(prove_against_transformers(checkpoint, theirs, setting))
    return proofs


def read_numpy_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every stored tensor as a NumPy array. Four-bit codes and scales stay bytes."""
    return {
        key: tensor.numpy() if tensor.dtype == torch.uint8 else tensor.double().numpy()
        for key, tensor in checkpoint.tensors()
    }


def prove_one(checkpoint: Checkpoint, weights: dict[str, np.ndarray], setting: Setting) -> Proof:
    """Compare one setting with NumPy, and check that recording changes nothing."""
    engine, tokens = prepare_setting(checkpoint, setting)
    request = Request(tuple(tokens), selection=Selection(tuple(setting.points)))
    (trace,) = trace_requests(EngineChoice(engine), None, [request], None)
    choice = {
        layer: trace.tensor("moe.expert_ids", layer).numpy().astype(np.int64)
        for layer in range(checkpoint.config.num_hidden_layers)
    }
    theirs = numpy_forward(checkpoint.config, weights, np.array(tokens), choice, setting.left_out)
    # The CPU kernels compute a single token in another order if points are recorded that the
    # compiled step does not store.
    points = setting.points if setting.kernels == "reference" else ALWAYS
    (plain,) = read_logits(engine, [Request(tuple(tokens))])
    (recorded,) = read_logits(engine, [replace(request, selection=Selection(tuple(points)))])
    name = "points" if setting.kernels == "reference" else "the default points"
    return Proof(
        setting,
        compare_points(trace, theirs, setting),
        {
            f"recording {name} changes no bit of the logits": torch.equal(plain, recorded),
            f"computed by the {setting.kernels} kernels": trace.origin.kernels == setting.kernels,
        },
    )


def prove_against_transformers(checkpoint: Checkpoint, theirs: Any, setting: Setting) -> Proof:
    """Compare one setting with transformers' model `theirs`. Each side chooses its own experts."""
    engine, tokens = prepare_setting(checkpoint, setting)
    request = Request(tuple(tokens), selection=Selection(tuple(setting.points)))
    (trace,) = trace_requests(EngineChoice(engine), None, [request], None)
    seen = transformers_forward(checkpoint.config, theirs, tokens)
    return Proof(setting, compare_points(trace, seen, setting), {})


def prepare_setting(checkpoint: Checkpoint, setting: Setting) -> tuple[Engine, list[int]]:
    """The engine of a setting and its random token ids."""
    kernels = load_kernels(setting.kernels)
    engine = Engines(load_model(checkpoint, dtype=DTYPES[setting.dtype]), kernels).main
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = checkpoint.config.vocab_size
    return engine, torch.randint(vocabulary, (setting.seq,), generator=generator).tolist()


def compare_points(trace: Trace, theirs: Seen, setting: Setting) -> tuple[Comparison, ...]:
    """Compare every point of the setting in every layer."""
    bound, found = setting.bound, []
    for point in setting.points:
        for layer in trace.layers_of(point) or (None,):
            ours = trace.tensor(point, layer).double().numpy()
            if is_choice(point):
                of = "moe.router_logits" if point == "moe.expert_ids" else "out.logits"
                chosen = ours.astype(np.int64)
                found.append(compare_choice(point, layer, chosen, theirs[of, layer], bound))
            else:
                measure = theirs["moe.router_logits", layer] if point == "moe.margin" else None
                expected = theirs[point, layer]
                found.append(compare(point, layer, ours, expected, bound, measure))
    return tuple(found)
