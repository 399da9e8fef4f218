"""`load_adapted`: a checkpoint with a LoRA adapter as a lab, without merging them."""

from pathlib import Path

import torch

from oss_lab.checkpoint.adapter import read_adapter
from oss_lab.checkpoint.plan import Dtype
from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.files import to_lora
from oss_lab.harmony.notices import warn
from oss_lab.lab import Lab, load


def load_adapted(
    name: str,
    folder: str | Path,
    *,
    dtype: Dtype | None = None,
    device: torch.device | str | None = None,
) -> Lab:
    """A lab whose model has the low-rank parts of a LoRA folder, on the reference engine.

    The weights are not merged and not rounded. `folder` may come from `finetune` or from PEFT.

    Warns about what may be wrong with the adapter, such as another base model.

    Raises:
        LabError: the checkpoint or the adapter cannot be used.
    """
    lab = load(name, dtype=dtype, device=device, kernels="reference", verbose=False)
    adapter = read_adapter(Path(folder), lab.config, name)
    warn(adapter.notes, UserWarning)
    lora = to_lora(adapter, lab.config).to(lab.model.device).requires_grad_(False)
    model = AdaptedTransformer(lab.model, lora)
    return Lab(model, lab.tokenizer, lab.sampling, lab.effort)
