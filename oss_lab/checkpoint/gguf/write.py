"""Write a checkpoint as a GGUF file: first all metadata, then one tensor after another."""

import math
import os
from pathlib import Path

import numpy as np

from oss_lab.checkpoint.atomic import check_output_file, replace_atomically
from oss_lab.checkpoint.gguf.fields import add_fields
from oss_lab.checkpoint.gguf.limits import check_config
from oss_lab.checkpoint.gguf.tensors import BYTES_PER_BLOCK, GGUFTensor, list_tensors
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.checkpoint.write import check_space
from oss_lab.config import MXFP4_BLOCK
from oss_lab.errors import CheckpointError, LabError, VocabularyError
from oss_lab.progress import track_progress
from oss_lab.tokenizer import VOCABULARIES, VocabularyName, load_vocabulary

ENDING = ".gguf"
ARCHITECTURE = "gpt-oss"


def write_gguf(
    checkpoint: Checkpoint,
    file: str | Path,
    *,
    overwrite: bool = False,
    vocabulary: VocabularyName | None = None,
) -> Path:
    """Write the GGUF file of a checkpoint; the process holds one tensor at a time.

    Args:
        vocabulary: by default the one that has the checkpoint's size. Give a smaller one to
            benchmark random weights in llama.cpp; the other ids are then unused.

    Raises:
        CheckpointError: llama.cpp would compute another model; the file exists, has another
            ending, or does not fit the disk.
        VocabularyError: the checkpoint's vocabulary is not known or not available.
        LabError: the package gguf is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise LabError(
            "GGUF files need the package gguf; install it with `pip install 'oss-lab[gguf]'`"
        ) from None
    file = Path(os.path.expanduser(file))
    check_config(checkpoint.config)
    vocabulary = vocabulary or VOCABULARIES.get(checkpoint.config.vocab_size)
    if vocabulary is None:
        size = f"{checkpoint.config.vocab_size:,}"
        raise VocabularyError(f"no known vocabulary has {size} tokens, and a GGUF file needs one")
    encoding = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
    tensors = list(list_tensors(checkpoint))
    _check_output(file, sum(map(count_bytes, tensors)), overwrite)
    with replace_atomically(file) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        add_fields(writer, checkpoint, encoding)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.storage]
            # numpy has no dtype of MXFP4 or BF16, so shapes are given in numbers, not bytes.
            nbytes = count_bytes(tensor)
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in track_progress(tensors, "writing", "tensor"):
            writer.write_tensor_data(tensor.read())
        writer.close()
    return file


def count_bytes(tensor: GGUFTensor) -> int:
    """Bytes of a tensor in the file."""
    *rest, last = tensor.shape
    sizes = {"F32": 4 * last, "BF16": 2 * last, "MXFP4": last // MXFP4_BLOCK * BYTES_PER_BLOCK}
    return math.prod(rest) * sizes[tensor.storage]


def _check_output(file: Path, needed: int, overwrite: bool) -> None:
    if file.suffix != ENDING:
        raise CheckpointError(f"{file} does not end in {ENDING}; --out needs such a file name")
    check_output_file(file)
    if file.exists() and not overwrite:
        raise CheckpointError(f"{file} already exists; replace it with --overwrite")
    check_space(file.parent, needed)
