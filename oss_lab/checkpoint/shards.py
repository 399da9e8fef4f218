"""Check the files of a folder together: the index, the numbering of shards, and their headers.

A checkpoint needs no index, but an existing index must be correct: every tensor is in the file that
it names, every file is named, and no name leads out of the folder. Without an index, all shards of
a numbered set (`model--00002-of-00007`) must be present.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from oss_lab.checkpoint.defects import Examination
from oss_lab.checkpoint.fields import make_printable, parse_object, shorten_json
from oss_lab.checkpoint.header import HeaderError, RepeatedTensorError, read_header

SHARD = re.compile(r"(?P<stem>.+?-+)(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True)
class Index:
    """An index file, and the shard that it names for each tensor (None if refused)."""

    name: str
    places: dict[str, str | None]

    @property
    def shards(self) -> set[str]:
        return {shard for shard in self.places.values() if shard is not None}


def read_index(found: Examination, file: Path) -> Index:
    try:
        places = parse_object(file.read_bytes()).get("weight_map")
    except OSError as error:
        found.add_defect("index", f"{file.name} cannot be read: {error.strerror}", file.name)
        return Index(file.name, {})
    except ValueError as error:
        found.add_defect("index", f"{file.name} {error}", file.name)
        return Index(file.name, {})
    if not isinstance(places, dict) or not places:
        found.add_defect("index", f"{file.name} has no weight_map of tensors to files", file.name)
        return Index(file.name, {})
    for name, shard in places.items():
        if not isinstance(shard, str) or not _is_file_name(shard):
            places[name] = None
            where = f"in {shorten_json(shard)}, not a .safetensors file of this folder"
            what = f"{file.name} places {make_printable(name)} {where}"
            found.add_defect("index", what, file.name, name)
    return Index(file.name, places)


def _is_file_name(text: str) -> bool:
    """True for a plain file name: no path separator, parent folder, drive or leading dot."""
    return text.isprintable() and re.fullmatch(r"[^./\\:][^/\\:]*\.safetensors", text) is not None


def read_shards(found: Examination, files: list[Path], indices: list[Index]) -> set[str]:
    """Read every header into `found.tensors`; return the files without a readable one."""
    missing = _find_named_shards(indices) if indices else _find_numbered_shards(files)
    present = {file.name for file in files}
    unread = set()
    for name, reason in missing.items():
        if name not in present:
            unread.add(name)
            found.add_defect(
                "shard", f"{make_printable(name)} is missing from the folder; {reason}", name
            )
    for file in files:
        try:
            header = read_header(file)
        except HeaderError as error:
            header = error.described
            if not header:
                unread.add(file.name)
            kind = "duplicate" if isinstance(error, RepeatedTensorError) else "file"
            subject = "" if error.tensor is None else f": tensor {make_printable(error.tensor)}"
            found.add_defect(kind, f"{file.name}{subject} {error}", file.name, error.tensor)
        for name, tensor in header.items():
            if (first := found.tensors.setdefault(name, tensor)) is not tensor:
                both = f"is in {first.file.name} and again in {file.name}"
                found.add_defect(
                    "duplicate", f"tensor {make_printable(name)} {both}", file.name, name
                )
    return unread


def _find_named_shards(indices: list[Index]) -> dict[str, str]:
    return {shard: f"{i.name} names it" for i in indices for shard in sorted(i.shards)}


def _find_numbered_shards(files: list[Path]) -> dict[str, str]:
    """Every shard that file names like model--00002-of-00007 imply.

    The published Hugging Face checkpoints count from 0 to the stated number, inclusive.
    """
    implied = {}
    for match in filter(None, (SHARD.fullmatch(file.name) for file in files)):
        stem, count = match["stem"], match["count"]
        first = f"{stem}00000-of-{count}.safetensors"
        start = 0 if any(file.name == first for file in files) else 1
        for number in range(start, int(count) + 1):
            name = f"{stem}{number:05}-of-{count}.safetensors"
            implied[name] = f"{match[0]} is one of {int(count)} shards"
    return implied


def compare_placement(
    found: Examination, index: Index, files: list[Path], unread: set[str]
) -> None:
    """Compare an index with the files. Its entries for unread files cannot be checked."""
    if not index.places:
        return
    named = index.shards
    for file in files:
        if file.name not in named and None not in index.places.values():
            found.add_defect("placement", f"{file.name} is not listed in {index.name}", file.name)
    for name, shard in index.places.items():
        if shard is None or shard in unread:
            continue
        located = found.tensors.get(name)
        if located is None:
            what = f"places {make_printable(name)} in {shard}, which does not contain it"
        elif located.file.name != shard:
            what = f"places {make_printable(name)} in {shard}, but it is in {located.file.name}"
        else:
            continue
        found.add_defect("placement", f"{index.name} {what}", index.name, name)
    for name, located in found.tensors.items():
        if name not in index.places and located.file.name in named:
            where = f"in {located.file.name} is not listed in {index.name}"
            what = f"tensor {make_printable(name)} {where}"
            found.add_defect("placement", what, located.file.name, name)
