"""Goes through the settings: a trace, the independent forward behind its choices, and the taps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from oss_kernels.backends import load as load_kernels
from tqdm.auto import tqdm

from oss_lab.checkpoint.read import Checkpoint
from oss_lab.generate import sequence_logits
from oss_lab.loading import DTYPES, find_checkpoint, load_model
from oss_lab.proof.compare import Comparison, compare, compare_choice, is_choice
from oss_lab.proof.numpy_forward import numpy_forward
from oss_lab.proof.settings import BOUNDS, SEED, Setting, settings
from oss_lab.tracing.recording import Recording, Selection
from oss_lab.tracing.run import traced

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
    """All settings on the CPU."""
    checkpoint = find_checkpoint(name)
    weights = plain_weights(checkpoint)
    todo = tqdm(settings(quick, CPU), unit="setting", delay=2, disable=None)
    return [prove_one(checkpoint, weights, setting) for setting in todo]


def plain_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every stored tensor as NumPy has it; four-bit codes and scales stay bytes."""
    return {
        key: tensor.numpy() if tensor.dtype == torch.uint8 else tensor.double().numpy()
        for key, tensor in checkpoint.tensors()
    }


def prove_one(checkpoint: Checkpoint, weights: dict[str, np.ndarray], setting: Setting) -> Proof:
    """One setting, over random ids."""
    config, bound = checkpoint.config, BOUNDS[setting.dtype]
    kernels = load_kernels(setting.kernels)
    model = load_model(checkpoint, dtype=DTYPES[setting.dtype], kernels=kernels)
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(config.vocab_size, (setting.seq,), generator=generator).tolist()
    selection = Selection(tuple(setting.points))
    trace = traced(model, None, tokens, selection, None)
    choice = {
        layer: trace.tensor("moe.expert_ids", layer).numpy().astype(np.int64)
        for layer in range(config.num_hidden_layers)
    }
    theirs = numpy_forward(config, weights, np.array(tokens), choice)
    comparisons = []
    for point in setting.points:
        for layer in trace.layers_of(point) or (None,):
            ours = trace.tensor(point, layer).double().numpy()
            if is_choice(point):
                of = "moe.router_logits" if point == "moe.expert_ids" else "out.logits"
                chosen = ours.astype(np.int64)
                comparisons.append(compare_choice(point, layer, chosen, theirs[of, layer], bound))
            else:
                measure = theirs["moe.router_logits", layer] if point == "moe.margin" else None
                expected = theirs[point, layer]
                comparisons.append(compare(point, layer, ours, expected, bound, measure))
    plain = sequence_logits(model, tokens)
    recorded = sequence_logits(model, tokens, taps=Recording(model, selection))
    return Proof(
        setting,
        tuple(comparisons),
        {
            "recording changes no bit of the logits": torch.equal(plain, recorded),
            f"computed by the {setting.kernels} kernels": trace.origin.kernels == setting.kernels,
        },
    )
