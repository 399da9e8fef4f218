"""`oss-lab logits`: compute the logits of lists of token ids, to compare with other programs.

No vocabulary is needed. The file `-` is standard input. All inputs are checked before anything is
computed, and OUT is written atomically. The model runs on OSS_LAB_DEVICE, or else on a CUDA GPU if
there is one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from oss_lab.checkpoint.atomic import check_output_file, write_tensors
from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.cli._options import Checkpoint, Precision, announce_replacement
from oss_lab.errors import LabError

if TYPE_CHECKING:
    from oss_lab.config import ModelConfig


def run(
    folder: Checkpoint,
    tokens: Annotated[
        list[Path], Option(metavar="F.json ...", help="files with a JSON list of token ids")
    ],
    out: Annotated[Path, Option(help="the safetensors file to write")],
    dtype: Precision = "float32",
    last: Annotated[int | None, Option(min=1, help="only the last N positions")] = None,
) -> int:
    """Write the logits of lists of token ids to a safetensors file."""
    names = name_tensors(tokens)
    check_output_file(out)
    values = [read_ids(path) for path in tokens]  # before torch is imported

    from tqdm.auto import tqdm

    from oss_lab.checkpoint.fetch import find_checkpoint
    from oss_lab.checkpoint.load import DTYPES, load_model
    from oss_lab.engine.choice import choose_device
    from oss_lab.engine.read import read_logits
    from oss_lab.engine.reference import ReferenceEngine
    from oss_lab.engine.request import Request

    checkpoint = find_checkpoint(folder)
    for path, ids in zip(tokens, values, strict=True):
        check_ids(path, ids, checkpoint.config)
    engine = ReferenceEngine(
        load_model(checkpoint, dtype=DTYPES[dtype], device=choose_device(None))
    )
    jobs = tqdm(list(zip(names, values, strict=True)), unit="file", delay=2, disable=None)
    logits = {name: read_logits(engine, [Request(tuple(ids))], last)[0].cpu() for name, ids in jobs}
    for path, found in zip(tokens, logits.values(), strict=True):
        if not found.isfinite().all():
            with prefix_errors(path):
                raise LabError("the logits contain NaN or infinity; the weights caused it")
    with announce_replacement(out):
        write_tensors(out, logits)
    return 0


def name_tensors(paths: Sequence[Path]) -> list[str]:
    """`logits` for one file, `logits.<stem>` for each of several."""
    if len(paths) == 1:
        return ["logits"]
    names: dict[str, Path] = {}
    for path in paths:
        name = f"logits.{path.stem}"
        if name in names:
            raise LabError(f"{names[name]} and {path} would both become {name}; rename one of them")
        names[name] = path
    return list(names)


def read_ids(path: Path) -> list[int]:
    """Read the JSON list of token ids in a file; every error names the file."""
    with prefix_errors(path):
        value: Any = read_json(path)
        if not isinstance(value, list):
            raise LabError(f"expected a JSON list of token ids, got {type(value).__name__}")
        for place, item in enumerate(value):
            if type(item) is not int:  # a bool is an int to Python
                kind = type(item).__name__
                raise LabError(f"expected a list of integers, but item {place} is a {kind}")
    return value


def check_ids(path: Path, ids: list[int], config: "ModelConfig") -> None:
    """Raise LabError, with the file's name, if the model cannot read these ids."""
    from oss_lab.engine.request import check_tokens

    with prefix_errors(path):
        check_tokens(ids, config, name="the list")
