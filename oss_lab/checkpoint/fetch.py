"""Open a checkpoint by name. Models of the Hugging Face Hub are downloaded only on request.

`huggingface_hub` keeps downloads in its cache; a complete one is used without the network. Only the
Hugging Face layout is downloaded, not the two other copies of the weights in OpenAI's repositories.
"""

from contextlib import suppress
from pathlib import Path

from oss_lab.checkpoint.names import find_repository
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.errors import LabError


def find_checkpoint(name: str | Path, *, download: bool = False) -> Checkpoint:
    """Open a checkpoint by name, Hub id or folder, as `oss_lab.load` does.

    Args:
        download: fetch a model of the Hub that is absent or only partly downloaded.

    Raises:
        LabError: the checkpoint is absent or has defects, or the download failed.
    """
    repository = find_repository(str(name)) if download else None
    if repository is not None:
        with suppress(LabError):  # absent or incomplete
            return open_checkpoint(name)
        download_snapshot(repository)
    return open_checkpoint(name)


def download_snapshot(repository: str) -> None:
    """Download a repository into the Hub's cache, or the files that are missing there.

    Raises:
        LabError: the download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        snapshot_download(
            repository,
            allow_patterns=["*.json", "*.safetensors"],
            ignore_patterns=["original/*", "metal/*"],
        )
    except LocalEntryNotFoundError:
        reason = "the Hugging Face Hub cannot be reached"
    except GatedRepoError:
        reason = "its owner has to grant access; request it on its page, then run hf auth login"
    except RepositoryNotFoundError:
        reason = "the Hub has no such public model; check its name, or run hf auth login"
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
    else:
        return
    raise LabError(f"{repository} could not be downloaded: {reason}") from None
