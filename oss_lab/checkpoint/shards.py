"""A folder's files taken together: the index, the shards' own numbering, and their headers.

An index is not needed to read a checkpoint, but where there is one it must be right: every tensor
in the file that it names, every file named, and no name that leads out of the folder. Without one,
shards that count themselves (`model--00002-of-00007`) must all be there.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from oss_lab.checkpoint.defects import Examination
from oss_lab.checkpoint.fields import parse_object, printable, shown
from oss_lab.checkpoint.header import HeaderError, RepeatedTensorError, read_header

SHARD = re.compile(r"(?P<stem>.+?-+)(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class Index:
    """An index file and the shard that it names for every tensor, None where it was refused."""

    name: str
    places: dict[str, str | None]

    @property
    def shards(self) -> set[str]:
        return {shard for shard in self.places.values() if shard is not None}


def read_index(found: Examination, file: Path) -> Index:
    try:
        places = parse_object(file.read_bytes()).get("weight_map")
    except OSError as error:
        found.complain("index", f"{file.name} cannot be read: {error.strerror}", file.name)
        return Index(file.name, {})
    except ValueError as error:
        found.complain("index", f"{file.name} {error}", file.name)
        return Index(file.name, {})
    if not isinstance(places, dict) or not places:
        found.complain("index", f"{file.name} has no weight_map of tensors to files", file.name)
        return Index(file.name, {})
    for name, shard in places.items():
        if not isinstance(shard, str) or not _is_file_name(shard):
            places[name] = None
            where = f"in {shown(shard)}, not a .safetensors file of this folder"
            what = f"{file.name} places {printable(name)} {where}"
            found.complain("index", what, file.name, name)
    return Index(file.name, places)


def _is_file_name(text: str) -> bool:
    """True for a plain name: no separator of any system, no way up, no drive, nothing hidden."""
    return text.isprintable() and re.fullmatch(r"[^./\\:][^/\\:]*\.safetensors", text) is not None


def read_shards(found: Examination, files: list[Path], indices: list[Index]) -> set[str]:
    """Read every header into `found.tensors`; return the files without a readable one."""
    missing = _named_shards(indices) if indices else _numbered_shards(files)
    present = {file.name for file in files}
    unread = set()
    for name, because in missing.items():
        if name not in present:
            unread.add(name)
            found.complain("shard", f"{printable(name)} is not in the folder; {because}", name)
    for file in files:
        try:
            header = read_header(file)
        except HeaderError as error:
            header = error.described
            if not header:
                unread.add(file.name)
            kind = "duplicate" if isinstance(error, RepeatedTensorError) else "file"
            subject = "" if error.tensor is None else f": tensor {printable(error.tensor)}"
            found.complain(kind, f"{file.name}{subject} {error}", file.name, error.tensor)
        for name, tensor in header.items():
            if (first := found.tensors.setdefault(name, tensor)) is not tensor:
                both = f"is in {first.file.name} and again in {file.name}"
                found.complain("duplicate", f"tensor {printable(name)} {both}", file.name, name)
    return unread


def _named_shards(indices: list[Index]) -> dict[str, str]:
    return {shard: f"{i.name} names it" for i in indices for shard in sorted(i.shards)}


def _numbered_shards(files: list[Path]) -> dict[str, str]:
    """Every shard that names like model--00002-of-00007 promise.

    The published Hugging Face checkpoints count from 0 to the stated number, both included.
    """
    promised = {}
    for match in filter(None, (SHARD.fullmatch(file.name) for file in files)):
        stem, count = match["stem"], match["count"]
        first = f"{stem}00000-of-{count}.safetensors"
        start = 0 if any(file.name == first for file in files) else 1
        for number in range(start, int(count) + 1):
            name = f"{stem}{number:05}-of-{count}.safetensors"
            promised[name] = f"{match[0]} counts {int(count)} shards"
    return promised


def compare_placement(
    found: Examination, index: Index, files: list[Path], unread: set[str]
) -> None:
    """Compare an index with the files; what it places in an unread one cannot be checked."""
    if not index.places:
        return
    named = index.shards
    for file in files:
        if file.name not in named and None not in index.places.values():
            found.complain("placement", f"{file.name} is not named by {index.name}", file.name)
    for name, shard in index.places.items():
        if shard is None or shard in unread:
            continue
        located = found.tensors.get(name)
        if located is None:
            what = f"places {printable(name)} in {shard}, which does not hold it"
        elif located.file.name != shard:
            what = f"places {printable(name)} in {shard}, but it is in {located.file.name}"
        else:
            continue
        found.complain("placement", f"{index.name} {what}", index.name, name)
    for name, located in found.tensors.items():
        if name not in index.places and located.file.name in named:
            what = f"tensor {printable(name)} in {located.file.name} is not in {index.name}"
            found.complain("placement", what, located.file.name, name)
