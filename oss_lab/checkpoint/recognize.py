"""Recognize what a path is if it is not a gpt-oss checkpoint, and name the next command.

A folder with a gpt-oss configuration and .safetensors files is left to `examine`, whatever other
files it contains. Nothing is unpacked, and no pickle is opened.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import make_printable, parse_object
from oss_lab.checkpoint.folders import describe_collection, is_download
from oss_lab.checkpoint.header import read_metadata
from oss_lab.checkpoint.names import find_nearest
from oss_lab.checkpoint.signatures import (
    ARCHIVE,
    HEADS,
    LFS,
    METAL,
    PIPELINES,
    QUANTIZATIONS,
    READS,
    WEIGHTS,
    Signature,
)

HEAD_BYTES = 512
UNSLOTH = re.compile(r"unsloth/(gpt-oss-(?:20b|120b))(?:-unsloth-bnb-4bit|-bf16)?", re.IGNORECASE)
CHECKED = ("*.safetensors", "*.safetensors.index.json", "config.json", "tokenizer*.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def recognize(path: Path) -> str | None:
    """What `path` is if it is not a checkpoint folder of gpt-oss; None if it may be one.

    The sentence has the path, what it is, and the next command.
    """
    if not path.exists():
        return _describe_absent(path)
    if not path.is_dir():
        return _describe_file(path)
    if not os.access(path, os.R_OK | os.X_OK):
        return f"{path} cannot be read: you have no permission; check it with ls -ld"
    return _describe_folder(path)


def find_replaced_files(folder: Path) -> list[tuple[Path, str]]:
    """Files of a checkpoint that are something else, such as git-lfs pointers; with a sentence."""
    found = []
    for file in sorted({file for pattern in CHECKED for file in folder.glob(pattern)}):
        head = read_head(file)
        if head.startswith(LFS):
            what = f"is a git-lfs pointer: run git lfs pull in {folder}"
            found.append((file, f"{file.name} {what}"))
        elif found_kind := _match_head(head):
            found.append((file, f"{file.name} is {found_kind.what}; {found_kind.advice}"))
    return found


def read_head(file: Path) -> bytes:
    """The first bytes of a regular file; empty if it cannot be read."""
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def _match_head(head: bytes) -> Signature | None:
    lower = head.lower()
    if head[8:9] == b"{":  # safetensors; the length before it may look like anything
        return None
    text = lower.lstrip()
    for offset, magic, kind in HEADS:
        if lower[offset : offset + len(magic)] == magic or (not offset and text.startswith(magic)):
            return kind
    return None


def _describe_absent(path: Path) -> str:
    if near := find_nearest(str(path)):
        return f"{path} is neither a folder nor a known model; did you mean {near}?"
    return f"{path} does not exist; use nano, 20b, 120b or a checkpoint folder"


def _describe_file(file: Path) -> str:
    folder = f"oss-lab inspect {shlex.quote(str(file.parent))}"
    head = read_head(file)
    if head.startswith(LFS):
        return f"{file} is a git-lfs pointer: run git lfs pull in {file.parent}"
    kind = None if file.suffix in PICKLES and head[:2] == b"PK" else _match_head(head)
    kind = kind or next((each for each in WEIGHTS if _matches(file, each)), None)
    if kind is ARCHIVE:
        unpack = "unzip" if head[:2] == b"PK" else "tar -xf"
        return f"{file} is an archive; unpack it first: {unpack} {shlex.quote(str(file))}"
    if kind is not None:
        return f"{file} is {kind.what}; {kind.advice}"
    if "oss_lab.trace" in read_metadata(file):
        return f"{file} is a trace, not a model; read it with oss_lab.Trace.load, or oss-lab diff"
    if file.suffix == ".safetensors":
        return f"{file} is a single weights file; give its folder: {folder}"
    return f"{file} is a file, not a folder; a checkpoint is a folder: {folder}"


def _matches(file: Path, kind: Signature) -> bool:
    return any(file.match(pattern) for pattern in kind.patterns)


def _describe_folder(folder: Path) -> str | None:
    adapter = folder / "adapter_config.json"
    weights = [f for f in folder.glob("*.safetensors*") if not f.name.startswith("adapter_")]
    if adapter.exists() and not (weights and (folder / "config.json").exists()):
        return _describe_adapter(folder, _read_fields(adapter))
    for kind in PIPELINES:
        if _find_first(folder, kind):
            return f"{folder} is {kind.what}; {kind.advice}"
    fields = _read_fields(folder / "config.json")
    if other := _describe_config(folder, fields, weights):
        return other
    if not weights:
        return _describe_other_weights(folder)
    if not fields and "oss_lab.trace" in read_metadata(weights[0]):
        return f"{folder} contains traces, not a model; compare two of them with oss-lab diff"
    return None


def _describe_adapter(folder: Path, fields: dict[str, Any]) -> str:
    base = fields.get("base_model_name_or_path")
    base = make_printable(base) if isinstance(base, str) and base else "BASE"
    if mirror := UNSLOTH.fullmatch(base):
        base = f"openai/{mirror[1].lower()}"
    arguments = f"{shlex.quote(base)} --adapter {shlex.quote(str(folder))}"
    what = f"{folder} is a LoRA adapter, not a whole model; merge it into its base model"
    return f"{what}: oss-lab convert {arguments} --to huggingface --out MERGED"


def _describe_config(folder: Path, fields: dict[str, Any], weights: list[Path]) -> str | None:
    """Another architecture, or gpt-oss in a quantization that is not MXFP4."""
    model_type, named = fields.get("model_type"), fields.get("architectures")
    if isinstance(model_type, str) and model_type not in ("", "gpt_oss"):
        names = [n for n in named if isinstance(n, str)] if isinstance(named, list) else []
        also = f", {names[0]}" if names else ""
        what = f"a model of another architecture (model_type {model_type}{also})"
        return f"{folder} is {make_printable(what)}; {READS}"
    origin = "use the checkpoint that it was made from, or oss-lab chat 20b --download"
    quantization = fields.get("quantization_config") or {}
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if isinstance(method, str) and method != "mxfp4":
        name = QUANTIZATIONS.get(method, make_printable(method))
        return f"{folder} is quantized with {name}, which oss-lab does not read; {origin}"
    is_mlx = bool(weights) and read_metadata(weights[0]).get("format") == "mlx"
    if isinstance(fields.get("quantization"), dict) or is_mlx:
        return f"{folder} is an MLX model, which oss-lab does not read; {origin}"
    return None


def _describe_other_weights(folder: Path) -> str | None:
    """Weights in another format, or another kind of folder; None for missing weights."""
    if _match_head(read_head(folder / "model.bin")) is METAL:
        return f"{folder} contains {METAL.what}; {METAL.advice}"
    for kind in WEIGHTS[:-1] if is_download(folder) else WEIGHTS:  # a download begins with these
        if file := _find_first(folder, kind):
            named = "" if file.name in kind.what else f" ({make_printable(file.name)})"
            return f"{folder} contains {kind.what}{named}; {kind.advice}"
    return None if (folder / "config.json").exists() else describe_collection(folder)


def _find_first(folder: Path, kind: Signature) -> Path | None:
    return min((file for pattern in kind.patterns for file in folder.glob(pattern)), default=None)


def _read_fields(file: Path) -> dict[str, Any]:
    try:
        return parse_object(file.read_bytes())
    except (OSError, ValueError):
        return {}
