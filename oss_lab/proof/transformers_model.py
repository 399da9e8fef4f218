"""The same checkpoint as transformers' GptOssForCausalLM, which others' figures come from.

Attention is eager, the only one it has for gpt-oss on a CPU, and it dequantizes the experts itself.
transformers is no dependency: the extra `test` brings it.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.errors import LabError

MISSING = 'transformers is not installed: `pip install "oss-lab[test]"` adds it'


def transformers_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Any checkpoint, in whichever layout; it is written anew for the purpose.

    Raises:
        LabError: transformers is not installed.
    """
    require_transformers()
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
        tensors = dict(checkpoint.tensors())
        write_checkpoint(folder, checkpoint.config, tensors, layout="huggingface")
        return read_folder(folder, dtype)


def read_folder(folder: str | Path, dtype: torch.dtype) -> Any:
    """A folder in the Hugging Face layout, read by transformers' own loader.

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


def transformers_installed() -> bool:
    try:
        require_transformers()
    except LabError:
        return False
    return True


def require_transformers() -> Any:
    """The library.

    Raises:
        LabError: it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise LabError(MISSING) from None
    return transformers
