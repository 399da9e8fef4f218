"""From a name or a folder to a workbench."""

import sys
from pathlib import Path

from oss_kernels.backends import Asked

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype, memory_plan
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.config import ModelConfig
from oss_lab.engine.choice import chosen_device, chosen_kernels
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.lab.workbench import Lab
from oss_lab.tokenizer import VOCABULARIES, VocabularyName, load_vocabulary

SMALL = 2**30  # bytes in float32
EFFORT: dict[VocabularyName, Effort] = {"nano": "high", "o200k_harmony": "medium"}
"""The default effort: Harmony's, except for nano, which is rarely right below high."""


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
        dtype: of the computation; float32 for models up to a gigabyte, else bfloat16.
        device: a torch device; by default OSS_LAB_DEVICE, else a CUDA GPU if there is one.
        kernels: which engine computes. "reference" is the readable model; "triton" and "cpu" are
            faster on a GPU and on a CPU, and refuse what they cannot serve; "auto" takes those made
            for the device, and the reference for requests that they cannot serve. By default
            OSS_LAB_KERNELS, else the reference for models up to a gigabyte and "auto" for larger
            ones.
        expert_cache_bytes: the most bytes that dequantized experts may take.
        download: fetch a published model that is not on this machine.
        verbose: print the memory plan on stderr before anything is loaded.

    Raises:
        LabError: the model, device or engine cannot be used; one sentence says why.
    """
    checkpoint = find_checkpoint(name, download=download)
    config = checkpoint.config
    vocabulary = vocabulary_name(checkpoint)
    dtype = dtype or ("float32" if is_small(config) else "bfloat16")
    if dtype not in DTYPES:
        raise LabError(f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    place = chosen_device(device)
    backend, is_auto = chosen_kernels(kernels, place, default_kernels(config))
    may_use_reference = is_auto or backend.name == "reference"
    kept = expert_cache_bytes if may_use_reference else 0
    plan = memory_plan(config, dtype=dtype, expert_cache_bytes=kept)
    if verbose:
        fallback = ", the reference where they cannot serve" if is_auto else ""
        computing = f"{backend.name} kernels{fallback}"
        print(f"{name} on {place}, {computing}: {plan.sentence}", file=sys.stderr)
    tokenizer = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
    model = load_model(
        checkpoint, dtype=DTYPES[dtype], device=place, expert_cache_bytes=expert_cache_bytes
    )
    sampling = GREEDY if vocabulary == "nano" else Sampling()
    return Lab(
        model, tokenizer, sampling, EFFORT[vocabulary], checkpoint,
        kernels=backend, is_auto=is_auto,
    )  # fmt: skip


def is_small(config: ModelConfig) -> bool:
    """Whether a model takes less than a gigabyte in float32."""
    return memory_plan(config, dtype="float32").total < SMALL


def default_kernels(config: ModelConfig) -> Asked:
    """Which engine computes a model by default."""
    return "reference" if is_small(config) else "auto"


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
