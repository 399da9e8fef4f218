"""Names of models: short names, ids of the Hugging Face Hub, and the Hub's cache of downloads.

`20b` and `120b` always mean the published models. A Hub id means the download in the cache, unless
a file or folder has that name, as in transformers. Nothing here uses the network.
"""

import os
import re
import shlex
from difflib import get_close_matches
from pathlib import Path

from oss_lab.checkpoint.plan import checkpoint_bytes
from oss_lab.config import MODELS
from oss_lab.errors import LabError

PUBLISHED = {
    "openai/gpt-oss-20b": "20b",
    "openai/gpt-oss-120b": "120b",
    "openai/gpt-oss-safeguard-20b": "20b",
    "openai/gpt-oss-safeguard-120b": "120b",
}
"""Hub ids whose configuration is known, and its name in MODELS."""

REPOSITORIES = {"20b": "openai/gpt-oss-20b", "120b": "openai/gpt-oss-120b"}
ALIASES = {repository.partition("/")[2]: repository for repository in PUBLISHED}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
URL = re.compile(r"(?:[a-z][\w+.-]+://|hf\.co/|www\.|huggingface\.co/)\S*", re.ASCII)
URL_ID = re.compile(r"(?:huggingface\.co|hf\.co|hf:/)/(?:models/)?([\w.-]+/[\w.-]+)", re.ASCII)
WINDOWS = re.compile(r"([A-Za-z]):[\\/]|\\\\|[^/]+\\[^/]+")
CACHED = "models--"  # the prefix of a model's folder in the cache


def find_repository(name: str) -> str | None:
    """The Hub id that `name` means; None for nano and for paths."""
    if name in REPOSITORIES:
        return REPOSITORIES[name]
    if name == "nano" or os.path.exists(os.path.expanduser(name)):
        return None
    return ALIASES.get(name) or (name if HUB_ID.fullmatch(name) else None)


def find_config_name(name: str) -> str | None:
    """The name in MODELS of the configuration that `name` has, known without its weights."""
    return name if name in MODELS else PUBLISHED.get(find_repository(name) or "")


def locate_cache(repository: str) -> Path:
    """The folder of a repository in the Hub's cache (HF_HUB_CACHE, HF_HOME); it may not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{CACHED}{repository.replace('/', '--')}"


def find_snapshot(cache: Path) -> Path | None:
    """The downloaded files in a repository's cache folder: those of `refs/main`, or the only ones.

    Raises:
        LabError: there are several snapshots, and none of them is the main one.
    """
    main, snapshots = cache / "refs" / "main", cache / "snapshots"
    if main.is_file():
        revision = main.read_text("utf-8", errors="replace").strip()
        if re.fullmatch(r"\w+", revision) and (snapshots / revision).is_dir():
            return snapshots / revision
    found = sorted(folder for folder in snapshots.glob("*") if folder.is_dir())
    if len(found) > 1:
        raise LabError(
            f"{snapshots} contains {len(found)} snapshots; choose one, such as {found[0]}"
        )
    return found[0] if found else None


def name_repository(folder: Path) -> str | None:
    """The Hub id of a folder in the cache, given its snapshot or the repository's folder."""
    cache = folder.parent.parent if folder.parent.name == "snapshots" else folder
    if not cache.name.startswith(CACHED):
        return None
    return cache.name.removeprefix(CACHED).replace("--", "/", 1)


def format_download(repository: str) -> str:
    """The command that downloads a repository."""
    names = {theirs: ours for ours, theirs in REPOSITORIES.items()}
    return f"oss-lab chat {names.get(repository, repository)} --download (Python: download=True)"


def describe_absent(repository: str, name: str) -> str:
    """Why a repository cannot be opened: it was not downloaded, or it is a mistyped name."""
    searched = f"searched {locate_cache(repository)}"
    if config := PUBLISHED.get(repository):
        size = f"{checkpoint_bytes(MODELS[config]) / 1e9:.1f} GB"
        title = repository.partition("/")[2]
        what = f"{title} is not on this machine ({searched})"
        return f"{what}; to download {size}, run {format_download(repository)}"
    if near := find_nearest(name):
        return f"{name} is neither a folder nor a known model; did you mean {near}?"
    what = f"{name} is neither a folder here nor a downloaded model ({searched})"
    return f"{what}; if it is on the Hugging Face Hub, run {format_download(repository)}"


def find_nearest(name: str) -> str | None:
    """The known name that a mistyped one resembles most; None for a path or a fine-tune."""
    owner, _, title = name.lower().rpartition("/")
    if owner and not get_close_matches(owner, ["openai"], cutoff=0.8):
        return None
    known = {_squeeze(title): title for title in ALIASES}
    if not owner:
        known |= {each: each for each in ("nano", *REPOSITORIES)} | {"gptossnano": "nano"}
    known["gptoss"] = "gpt-oss-20b"
    near = get_close_matches(_squeeze(title), known, n=1, cutoff=0.75)
    if not near:
        return None
    return ALIASES[known[near[0]]] if owner else known[near[0]]


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)


def check_spelling(name: str) -> None:
    """Refuse a web address, and a Windows path on another system, which are not paths here.

    Raises:
        LabError: the sentence has the name or path to use instead.
    """
    if os.path.exists(name):
        return
    if URL.fullmatch(name):
        found = URL_ID.search(name)
        use = f"the model's id, as in oss-lab inspect {found[1]}" if found else "a folder or Hub id"
        raise LabError(f"{name} is a web address; use {use}")
    if os.name != "nt" and (windows := WINDOWS.match(name)):
        here = name.replace("\\", "/")
        if drive := windows[1]:
            here = f"/mnt/{drive.lower()}{here[2:]}"  # where WSL mounts the drive
        use = f"use its path here, as in oss-lab inspect {shlex.quote(here)}"
        raise LabError(f"{name} is a Windows path; {use}")
