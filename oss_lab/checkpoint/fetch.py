"""Open a checkpoint by name. Published models are downloaded only on request.

`huggingface_hub` keeps downloads in its cache; a model already there is used without the network.
Only the Hugging Face layout is downloaded, not the two other copies of the weights in each
repository.
"""

from pathlib import Path

from oss_lab.checkpoint.plan import checkpoint_bytes
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.config import MODELS
from oss_lab.errors import LabError

REPOSITORIES = {"20b": "openai/gpt-oss-20b", "120b": "openai/gpt-oss-120b"}


def find_checkpoint(name: str | Path, *, download: bool = False) -> Checkpoint:
    """Open a checkpoint by the name of a published model or by folder, as `oss_lab.load` does."""
    published = str(name) in REPOSITORIES
    return open_checkpoint(
        find_published_folder(str(name), download=download) if published else name
    )


def find_published_folder(name: str, *, download: bool = False) -> Path:
    """The local folder of a published model.

    Raises:
        LabError: it is not on this machine and `download` is False, or the download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = REPOSITORIES[name]
    gigabytes = checkpoint_bytes(MODELS[name]) / 1e9
    try:
        folder = snapshot_download(
            repository,
            local_files_only=not download,
            allow_patterns=["*.json", "*.safetensors"],
            ignore_patterns=["original/*", "metal/*"],
        )
    except LocalEntryNotFoundError:
        if download:
            raise LabError(
                f"{repository} could not be downloaded: the Hugging Face Hub cannot be reached"
            ) from None
        raise LabError(
            f"gpt-oss-{name} is not on this machine; load it from a folder, or download"
            f" it ({gigabytes:.1f} GB) with download=True (command line: --download)"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise LabError(f"{repository} could not be downloaded: {error}") from None
    return Path(folder)
