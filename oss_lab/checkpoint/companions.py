"""The tokenizer files of a Hugging Face folder: a checkpoint's own, or ours if it has none.

A fine-tune may have another chat template or vocabulary. So if a source has a tokenizer.json, only
its files are copied and nothing of ours is added. Files that are there already, as when `original/`
is converted into the folder around it, are kept.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from oss_lab.checkpoint.huggingface_tokenizer import (
    FILES,
    GENERATION,
    write_tokenizer,
)
from oss_lab.checkpoint.vocabulary import TOKENIZER
from oss_lab.config import ModelConfig
from oss_lab.errors import VocabularyError
from oss_lab.tokenizer import VOCABULARIES, load_vocabulary


def write_companions(out: Path, sources: Sequence[Path], config: ModelConfig) -> str:
    """Write the tokenizer files of a checkpoint in the Hugging Face layout.

    Args:
        sources: folders that may have tokenizer files; the first one that does is copied.

    Returns:
        A line that names the files and where they come from.

    Raises:
        VocabularyError: the checkpoint has no tokenizer, and its vocabulary is not available.
    """
    owner = next((each for each in sources if (each / TOKENIZER).is_file()), None)
    if owner is not None:
        copied = [name for name in FILES if (owner / name).is_file()]
        _copy(copied, owner, out)
        return f"{', '.join(copied)}: copied from {owner}"
    vocabulary = VOCABULARIES.get(config.vocab_size)
    if vocabulary is None:
        size = f"{config.vocab_size:,}"
        raise VocabularyError(f"no known vocabulary has {size} tokens; add your tokenizer files")
    encoding = load_vocabulary(vocabulary)
    defaults = next((each for each in sources if (each / GENERATION).is_file()), None)
    with TemporaryDirectory(dir=out, prefix=".partial-") as partial:
        files = write_tokenizer(Path(partial), encoding, config.max_context_length)
        written = [file.name for file in files if defaults is None or file.name != GENERATION]
        _copy(written, Path(partial), out)
    if defaults is not None:
        _copy([GENERATION], defaults, out)
        return f"{', '.join(written)}: {vocabulary}; {GENERATION}: copied from {defaults}"
    return f"{', '.join(written)}: {vocabulary} with the chat template of oss_lab"


def _copy(names: Sequence[str], source: Path, out: Path) -> None:
    """Copy files; a link in `out` is replaced, so the file that it points to does not change."""
    for name in names:
        there = out / name
        if there.exists() and there.samefile(source / name):
            continue
        there.unlink(missing_ok=True)
        shutil.copyfile(source / name, there)
