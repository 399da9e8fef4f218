"""Folders that contain several checkpoints or downloads, and downloads that did not finish."""

import re
import shlex
from pathlib import Path

from oss_lab.checkpoint.defects import Examination
from oss_lab.checkpoint.fields import make_printable
from oss_lab.checkpoint.names import CACHED, format_download, name_repository
from oss_lab.checkpoint.signatures import PUBLISHED_WEIGHTS

SHOWN = 3
MARKS = ("config.json", "adapter_config.json")
FILE_KINDS = ("shard", "config", "file")  # defects whose file may be absent
LOCAL_DOWNLOAD = ".cache/huggingface/download"
"""Where `hf download --local-dir` keeps the state of a download, in the folder itself."""


def describe_collection(folder: Path) -> str | None:
    """What a folder without weights and configuration is; None if nothing is recognized."""
    if folder.parent.name == "snapshots" and is_download(folder):
        return None
    if repository := name_repository(folder):
        return f"{folder} has no downloaded files; run {format_download(repository)}"
    if cached := sorted([*folder.glob(f"{CACHED}*"), *folder.glob(f"hub/{CACHED}*")]):
        names = [name_repository(each) or each.name for each in cached]
        what = f"a Hugging Face cache with {_count(names, 'model')} ({_list_some(names)})"
        return f"{folder} is {what}; choose one: oss-lab inspect {shlex.quote(names[-1])}"
    if (folder / "evidence.json").exists():
        read = "open it with oss_lab.record.evidence.read_evidence"
        return f"{folder} is a folder of oss-lab record, not a model; {read}"
    inside = {file.parent for mark in MARKS for file in folder.glob(f"*/{mark}")}
    if inside:
        names = [each.name for each in sorted(inside, key=_numbered)]
        choose = f"oss-lab inspect {shlex.quote(str(folder / names[-1]))}"
        what = f"{_count(names, 'checkpoint')} in subfolders ({_list_some(names)})"
        return f"{folder} contains {what}; choose one: {choose}"
    if not any(folder.iterdir()):
        return f"{folder} is an empty folder; {PUBLISHED_WEIGHTS}"
    what = f"{folder} contains no checkpoint, neither config.json nor .safetensors files"
    return f"{what}; use nano, 20b, 120b or a checkpoint folder"


def is_download(folder: Path) -> bool:
    """Whether `huggingface_hub` wrote this folder, in its cache or with `--local-dir`."""
    return name_repository(folder) is not None or (folder / LOCAL_DOWNLOAD).is_dir()


def describe_unfinished(found: Examination) -> str | None:
    """Name the missing files of a download and how to finish it; None if nothing is missing.

    Only folders that `huggingface_hub` wrote are known to be downloads.
    """
    folder = found.folder
    home = folder.parent if folder.name == "original" else folder
    repository = name_repository(home)
    named = {defect.file: None for defect in found.defects if defect.kind in FILE_KINDS}
    missing = [name for name in named if name and not (folder / name).exists()]
    has_weights = any(file.exists() for file in folder.glob("*.safetensors"))
    if not has_weights and not any(name.endswith(".safetensors") for name in missing):
        missing.append("*.safetensors")
    if not missing or not is_download(home):
        return None
    finish = f"run {format_download(repository)}" if repository else "run hf download again"
    what = f"{repository or 'a model'} is only partly downloaded"
    missing = [make_printable(name) for name in missing]
    return f"{what}: {folder} lacks {_list_some(missing)}; to finish, {finish}"


def _list_some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) > 1)}"


def _numbered(folder: Path) -> list[tuple[int, str]]:
    """Sort checkpoint-500 before checkpoint-1000."""
    parts = re.split(r"(\d+)", folder.name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
