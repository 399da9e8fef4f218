"""Load a checkpoint as transformers' GptOssForCausalLM, to compare with an outside implementation.

Attention is eager, the only kind transformers has for gpt-oss on a CPU. transformers dequantizes
the experts itself. It is not a dependency of oss_lab; the extra `test` installs it.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.errors import LabError

MISSING = 'transformers is not installed: `pip install "oss-lab[test]"` adds it'


def load_transformers_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Load any checkpoint in any layout, by way of a temporary copy in the Hugging Face layout.

    Raises:
        LabError: transformers is not installed.
    """
    require_transformers()
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
        write_copy(checkpoint, folder)
        return load_folder(folder, dtype)


def write_copy(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write a checkpoint in the layout that transformers reads."""
    tensors = dict(checkpoint.tensors())
    write_checkpoint(folder, checkpoint.config, tensors, layout="huggingface")


def load_folder(folder: str | Path, dtype: torch.dtype) -> Any:
    """Load a folder in the Hugging Face layout with transformers' loader.

    Raises:
        LabError: transformers is not installed.
    """
    transformers = require_transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation="eager",
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        local_files_only=True,
    ).eval()


def is_transformers_installed() -> bool:
    try:
        require_transformers()
    except LabError:
        return False
    return True


def require_transformers() -> Any:
    """Import transformers.

    Raises:
        LabError: it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise LabError(MISSING) from None
    return transformers
