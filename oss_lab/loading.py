"""From a name or a checkpoint folder to a model that can run, and the workbench around it.

Nothing is used before the whole folder has been examined and the memory plan printed. Expert
matrices stay packed. The reference dequantises them on demand into a cache of at most
`expert_cache_bytes`; the other kernels read them as they are.
"""

import os
import sys
from pathlib import Path
from typing import Literal

import torch
from oss_kernels.backends import Asked, Backend, UnusableBackend, choose

from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype, memory_plan
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.errors import LabError
from oss_lab.fetch import REPOSITORIES, published_folder
from oss_lab.generate import GREEDY, Sampling
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.model import Transformer
from oss_lab.model.experts import ExpertCache, PackedExperts
from oss_lab.model.with_kernels import KernelTransformer
from oss_lab.tokenizer import load_vocabulary

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SMALL = 2**30  # bytes in float32
VocabularyName = Literal["nano", "o200k_harmony"]
VOCABULARIES: dict[int, VocabularyName] = {
    GPT_OSS_NANO.vocab_size: "nano",
    GPT_OSS_20B.vocab_size: "o200k_harmony",
}
"""Which vocabulary a checkpoint of this vocab_size was trained with."""

EFFORT: dict[VocabularyName, Effort] = {"nano": "high", "o200k_harmony": "medium"}
"""The effort where none is given: Harmony's, but for nano, which is seldom right below high."""


def load(
    name: str | Path = "nano",
    *,
    dtype: Dtype | None = None,
    device: str | None = None,
    kernels: Asked | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
    download: bool = False,
    verbose: bool = True,
) -> Lab:
    """The workbench on "nano", "20b", "120b" or a checkpoint folder.

    Args:
        dtype: what is computed in; float32 for models up to a gigabyte, else bfloat16.
        device: a torch device; by default OSS_LAB_DEVICE, else a CUDA GPU if there is one.
        kernels: "reference" is the spelt-out model, "triton" and "cpu" compute it faster on a GPU
            and on a CPU, "auto" takes what is made for the device. By default OSS_LAB_KERNELS, else
            the reference for models up to a gigabyte and "auto" for larger ones. A trace is always
            the spelt-out model's.
        expert_cache_bytes: the most that dequantised experts may take.
        download: fetch a published model that is not on this machine.
        verbose: print the memory plan on stderr before anything is loaded.

    Raises:
        LabError: what was named cannot be used; one sentence says why.
    """
    checkpoint = find_checkpoint(name, download=download)
    config = checkpoint.config
    vocabulary = vocabulary_name(checkpoint)
    small = memory_plan(config, dtype="float32").total < SMALL
    dtype = dtype or ("float32" if small else "bfloat16")
    if dtype not in DTYPES:
        raise LabError(f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    place = chosen_device(device)
    backend = chosen_kernels(kernels, place, default="reference" if small else "auto")
    kept = expert_cache_bytes if backend.name == "reference" else 0
    plan = memory_plan(config, dtype=dtype, expert_cache_bytes=kept)
    if verbose:
        print(f"{name} on {place}, {backend.name} kernels: {plan.sentence}", file=sys.stderr)
    encoding = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
    model = load_model(
        checkpoint,
        dtype=DTYPES[dtype],
        device=place,
        kernels=backend,
        expert_cache_bytes=expert_cache_bytes,
    )
    sampling = GREEDY if vocabulary == "nano" else Sampling()
    return Lab(model, encoding, sampling, EFFORT[vocabulary], checkpoint)


def vocabulary_name(checkpoint: Checkpoint) -> VocabularyName:
    """The vocabulary that a model of this size was trained with.

    Raises:
        LabError: there is none of this size.
    """
    size = checkpoint.config.vocab_size
    if size not in VOCABULARIES:
        known = " or ".join(f"{size} ({which})" for size, which in VOCABULARIES.items())
        raise LabError(
            f"{checkpoint.folder} has a vocab_size of {size}; there are vocabularies for {known}"
            " only, and `oss-lab logits` and `oss-lab trace --tokens` need none"
        )
    return VOCABULARIES[size]


def find_checkpoint(name: str | Path, *, download: bool = False) -> Checkpoint:
    """The examined checkpoint that a name or a folder stands for, as in `load`."""
    published = str(name) in REPOSITORIES
    return open_checkpoint(published_folder(str(name), download=download) if published else name)


def chosen_device(device: str | None) -> torch.device:
    """The device asked for, or the best there is."""
    wanted = device or os.environ.get("OSS_LAB_DEVICE")
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
        return torch.device(wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"device {wanted!r} cannot be used here: {reason}") from None


def chosen_kernels(
    kernels: Asked | None, device: torch.device, default: Asked = "reference"
) -> Backend:
    """The kernels asked for, if they can run on the device."""
    asked = kernels or os.environ.get("OSS_LAB_KERNELS") or default
    try:
        return choose(asked, device)
    except UnusableBackend as error:
        raise LabError(str(error)) from None


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    kernels: Backend | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
) -> Transformer:
    """The checkpoint's model in evaluation mode, with no gradients.

    Without kernels it is the spelt-out one. On the CPU in bfloat16 the tensors stay the file's own
    mapped bytes.
    """
    with torch.device("meta"):
        if kernels is None or kernels.name == "reference":
            model = Transformer(checkpoint.config)
        else:
            model = KernelTransformer(checkpoint.config, kernels)
    placed = {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in checkpoint.tensors()
    }
    model.load_state_dict(placed, assign=True)
    cache = ExpertCache(expert_cache_bytes)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache
    return model.eval().requires_grad_(False)
