"""Goes through the settings: a trace, the independent forward behind its choices, and the hooks;
then traces and what transformers computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from oss_kernels.backends import load as load_kernels

from oss_lab.analysis.tracing import trace_requests
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.choice import Chosen, Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request
from oss_lab.hooks.selection import Selection
from oss_lab.progress import progress
from oss_lab.proof.compare import Comparison, compare, compare_choice, is_choice
from oss_lab.proof.numpy_forward import Seen, numpy_forward
from oss_lab.proof.settings import SEED, Setting, settings, transformers_settings
from oss_lab.proof.transformers_forward import transformers_forward
from oss_lab.proof.transformers_model import transformers_installed, transformers_model
from oss_lab.record.trace import Trace

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Proof:
    """What came of one setting; `identities` are statements that hold exactly or not."""

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
    """All settings on the CPU; none against transformers where that is not installed."""
    checkpoint = find_checkpoint(name)
    weights = plain_weights(checkpoint)
    todo = progress(settings(quick, CPU), "proof", "setting", leave=True)
    proofs = [prove_one(checkpoint, weights, setting) for setting in todo]
    if not transformers_installed():
        return proofs
    theirs = transformers_model(checkpoint, torch.float32)
    todo = progress(transformers_settings(quick), "transformers", "setting", leave=True)
    return [*proofs, *(prove_beside(checkpoint, theirs, setting) for setting in todo)]


def plain_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every stored tensor as NumPy has it; four-bit codes and scales stay bytes."""
    return {
        key: tensor.numpy() if tensor.dtype == torch.uint8 else tensor.double().numpy()
        for key, tensor in checkpoint.tensors()
    }


def prove_one(checkpoint: Checkpoint, weights: dict[str, np.ndarray], setting: Setting) -> Proof:
    """One setting against NumPy, and that recording has changed nothing."""
    engine, tokens = asked(checkpoint, setting)
    request = Request(tuple(tokens), selection=Selection(tuple(setting.points)))
    (trace,) = trace_requests(Chosen(engine), None, [request], None)
    choice = {
        layer: trace.tensor("moe.expert_ids", layer).numpy().astype(np.int64)
        for layer in range(checkpoint.config.num_hidden_layers)
    }
    theirs = numpy_forward(checkpoint.config, weights, np.array(tokens), choice, setting.left_out)
    (plain,) = read_logits(engine, [Request(tuple(tokens))])
    (recorded,) = read_logits(engine, [request])
    return Proof(
        setting,
        compared(trace, theirs, setting),
        {
            "recording changes no bit of the logits": torch.equal(plain, recorded),
            f"computed by the {setting.kernels} kernels": trace.origin.kernels == setting.kernels,
        },
    )


def prove_beside(checkpoint: Checkpoint, theirs: Any, setting: Setting) -> Proof:
    """One setting against transformers' model `theirs`; each forward goes by its own choices."""
    engine, tokens = asked(checkpoint, setting)
    request = Request(tuple(tokens), selection=Selection(tuple(setting.points)))
    (trace,) = trace_requests(Chosen(engine), None, [request], None)
    seen = transformers_forward(checkpoint.config, theirs, tokens)
    return Proof(setting, compared(trace, seen, setting), {})


def asked(checkpoint: Checkpoint, setting: Setting) -> tuple[Engine, list[int]]:
    """The engine of a setting, and its random ids."""
    kernels = load_kernels(setting.kernels)
    engine = Engines(load_model(checkpoint, dtype=DTYPES[setting.dtype]), kernels).main
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = checkpoint.config.vocab_size
    return engine, torch.randint(vocabulary, (setting.seq,), generator=generator).tolist()


def compared(trace: Trace, theirs: Seen, setting: Setting) -> tuple[Comparison, ...]:
    """Every point of the setting in every layer."""
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
