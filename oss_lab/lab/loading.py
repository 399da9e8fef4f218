"""`load`: from a name or a folder to a `Lab`."""

import os
import sys

import torch
from oss_kernels.backends import Backend, KernelChoice

from oss_lab.checkpoint.fake import read_fake_mark
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.memory import check_memory
from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype, is_small, plan_memory, prefill_bytes
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT, check_vocabulary
from oss_lab.config import ModelConfig
from oss_lab.engine.choice import choose_device, choose_kernels
from oss_lab.engine.kernels import DENSE_REFUSAL
from oss_lab.engine.parallel.part import Part
from oss_lab.engine.parallel.processes import start_processes
from oss_lab.engine.read import GPU_PREFILL_CHUNK, PREFILL_CHUNK
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments, describe
from oss_lab.lab.workbench import Lab
from oss_lab.tokenizer import VOCABULARIES, VocabularyName, load_vocabulary


@check_arguments
def load(
    name: "str | os.PathLike[str]" = "nano",
    *,
    dtype: Dtype | None = None,
    device: str | torch.device | None = None,
    kernels: KernelChoice | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
    download: bool = False,
    parallel: bool = False,
    verbose: bool = True,
) -> Lab:
    """Load "nano", "20b", "120b", a Hub id or a checkpoint folder, and return its `Lab`.

    Args:
        name: a Hub id such as "openai/gpt-oss-20b" means its download in the Hub's cache.
        dtype: the precision to compute in; by default float32 below 1 GiB of memory, else bfloat16.
        device: a torch device; by default OSS_LAB_DEVICE, else a CUDA GPU if there is one.
        kernels: the engine that computes. "reference" is the reference model. "triton" (GPU) and
            "cpu" are faster, and refuse points and interventions that they do not support. "auto"
            uses the kernels for the device, and the reference model for requests that they do not
            support. By default OSS_LAB_KERNELS, else "reference" below 1 GiB and "auto" above.
        expert_cache_bytes: maximum memory for dequantized experts.
        download: fetch a model of the Hugging Face Hub that is not on this machine.
        parallel: split the model over the processes that torchrun started. Each of them loads its
            part (`oss_lab/engine/parallel/`), and all must make the same calls, with a seed where
            tokens are sampled. Kernels compute the experts only.
        verbose: print the memory plan on stderr before loading.

    Raises:
        LabError: the model, device or engine cannot be used.
    """
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise LabError(
            'name must be a model such as "nano", "20b" or "120b", or a checkpoint folder,'
            f" got {describe(name)}"
        )
    if expert_cache_bytes < 0:
        raise LabError(f"expert_cache_bytes is {expert_cache_bytes}; it must be 0 or more")
    checkpoint = find_checkpoint(os.fspath(name), download=download)
    config = checkpoint.config
    vocabulary = vocabulary_name(checkpoint)
    if dtype is None:
        dtype = "float32" if is_small(config) else "bfloat16"
    torch_device, processes = choose_device(device), None
    if parallel:
        processes, torch_device = start_processes(torch_device)
        Part(config, processes.rank, processes.count)  # refuses a model that cannot be split
    backend, is_auto, why = _choose_kernels_for(checkpoint, kernels, torch_device)
    may_use_reference = is_auto or backend.name == "reference"
    cache_bytes = expert_cache_bytes if may_use_reference else 0
    context = config.initial_context_length
    is_long = backend.name == "triton" and not parallel
    chunk = min(GPU_PREFILL_CHUNK, context) if is_long else PREFILL_CHUNK
    plan = plan_memory(
        config,
        dtype=dtype,
        context=context,
        expert_cache_bytes=cache_bytes,
        storage=checkpoint.experts,
        processes=processes.count if processes else 1,
        history="window",
        scratch=max(
            # A split model has the reference's attention, whatever computes its experts.
            prefill_bytes(
                config, PREFILL_CHUNK, context, is_reference=may_use_reference or parallel
            ),
            prefill_bytes(config, chunk, context, is_reference=False),
        ),
    )
    if checkpoint.experts == "bf16":
        check_memory(plan, torch_device)
    if verbose and (processes is None or processes.rank == 0):
        fallback = ", or the reference model if needed" if is_auto else ""
        shared = f", each of {processes.count} processes" if processes else ""
        computing = f"{backend.name} kernels{fallback}{why}{shared}"
        print(f"{name} on {torch_device}, {computing}: {plan.sentence}", file=sys.stderr)
        if mark := read_fake_mark(checkpoint):
            print(f"{name} is fake: {mark}", file=sys.stderr)
    tokenizer = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
    check_vocabulary(checkpoint.folder, tokenizer)
    model = load_model(
        checkpoint,
        dtype=DTYPES[dtype],
        device=torch_device,
        expert_cache_bytes=expert_cache_bytes,
        processes=processes,
    )
    sampling = GREEDY if vocabulary == "nano" else Sampling()
    return Lab(
        model, tokenizer, sampling, DEFAULT_EFFORT[vocabulary], checkpoint,
        kernels=backend, is_auto=is_auto,
    )  # fmt: skip


def _choose_kernels_for(
    checkpoint: Checkpoint, kernels: KernelChoice | None, device: torch.device
) -> tuple[Backend, bool, str]:
    """The kernels, whether the reference engine may replace them, and why it does already.

    Raises:
        LabError: kernels were requested by name, and cannot read dense experts.
    """
    backend, is_auto = choose_kernels(kernels, device, default_kernels(checkpoint.config))
    if checkpoint.experts == "mxfp4" or backend.name == "reference":
        return backend, is_auto, ""
    if not is_auto:
        raise LabError(f"the {backend.name} kernels read {DENSE_REFUSAL}")
    reference, _ = choose_kernels("reference", device)
    return reference, False, " (the kernels read MXFP4 experts, and these are BF16)"


def default_kernels(config: ModelConfig) -> KernelChoice:
    """The `kernels` that `load` uses by default."""
    return "reference" if is_small(config) else "auto"


def vocabulary_name(checkpoint: Checkpoint) -> VocabularyName:
    """The name of the checkpoint's vocabulary, found by its vocab_size.

    Raises:
        LabError: no vocabulary has this size.
    """
    size = checkpoint.config.vocab_size
    if size not in VOCABULARIES:
        known = " or ".join(f"{size} ({which})" for size, which in VOCABULARIES.items())
        raise LabError(
            f"{checkpoint.folder} has a vocab_size of {size}; the known vocabularies have {known};"
            " `oss-lab logits` and `oss-lab trace --tokens` work without a vocabulary"
        )
    return VOCABULARIES[size]
