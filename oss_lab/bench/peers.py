"""Which other programs can run the model here, and why the others cannot."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from oss_lab.bench.llama import LlamaBench
from oss_lab.checkpoint.gguf.write import write_gguf
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.errors import LabError
from oss_lab.proof.transformers_model import require_transformers
from oss_lab.tokenizer import VOCABULARIES


@dataclass(frozen=True)
class Peers:
    """The peers of a run.

    Attributes:
        missing: one sentence for each peer that cannot take part.
    """

    has_transformers: bool = False
    llama: LlamaBench | None = None
    missing: tuple[str, ...] = ()


def find_peers(checkpoint: Checkpoint, program: str | None, folder: Path, threads: int) -> Peers:
    """The peers that can run this checkpoint.

    Args:
        program: the path of llama-bench.
        folder: where to write the checkpoint's GGUF file.
    """
    missing, has_transformers, llama = [], True, None
    try:
        require_transformers()
    except LabError as error:
        missing, has_transformers = [f"transformers: {error}"], False
    try:
        llama = open_llama(checkpoint, program, folder, threads)
    except LabError as error:
        missing.append(f"llama.cpp: {error}")
    return Peers(has_transformers, llama, tuple(missing))


def open_llama(
    checkpoint: Checkpoint, program: str | None, folder: Path, threads: int
) -> LlamaBench:
    """llama-bench on a new GGUF file of the checkpoint.

    Random weights may have a vocabulary of any size. Their file gets nano's.

    Raises:
        LabError: the program does not run, or llama.cpp cannot compute the model.
    """
    if program is None:
        raise LabError("give the path of its program with --llama-bench PATH")
    found = shutil.which(program)
    if found is None:
        raise LabError(f"{program} is not a program; give the path of llama-bench")
    vocabulary = None if checkpoint.config.vocab_size in VOCABULARIES else "nano"
    file = write_gguf(checkpoint, folder / "model.gguf", vocabulary=vocabulary)
    llama = LlamaBench(Path(found).resolve(), file, threads)
    llama.run("-p", 1, "-n", 0)
    return llama
