"""Everything that is wrong with a checkpoint folder, found before any weight is used.

Only headers and the experts' scale bytes are read, without torch. What follows from an earlier
defect is left out: tensors are not called missing while a file that may hold them has no readable
header, and nothing is compared with a configuration whose sizes cannot be used. Left out: NaN and
infinite BF16 weights, and dtypes.json, which no reader needs.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tqdm.auto import tqdm

from oss_lab.checkpoint.defects import KINDS, Defect, Examination
from oss_lab.checkpoint.dialects import dialect_of, examine_config, shapes_of
from oss_lab.checkpoint.fields import parse_object, printable
from oss_lab.checkpoint.header import Located
from oss_lab.checkpoint.layouts import LAYOUTS, TITLES, StoredTensor, stored_table
from oss_lab.checkpoint.shards import compare_placement, read_index, read_shards

CONFIG = "config.json"
NAN_SCALE = b"\xff"  # E8M0's only byte that is not a power of two
PROGRESS_BYTES = 64 * 2**20
READ_BYTES = 16 * 2**20
DEQUANTIZED = re.compile(r"model\.layers\.\d+\.mlp\.experts\.(gate_up|down)_proj")


def examine(folder: Path) -> Examination:
    """Look at everything that can be wrong with the checkpoint in `folder`."""
    found = Examination(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        found.complain("folder", f"{folder} {what}", str(folder))
        return found
    _examine_config(found)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        found.complain("folder", f"{folder} holds no .safetensors file", str(folder))
        return found
    indices = [read_index(found, file) for file in sorted(folder.glob("*.safetensors.index.json"))]
    unread = read_shards(found, files, indices)
    for index in indices:
        compare_placement(found, index, files, unread)
    if found.shapes is not None and not _is_other_layout(found):
        _compare_names(found, None if unread else files)
        _compare_tensors(found)
    found.defects.sort(key=lambda defect: KINDS.index(defect.kind))  # stable within a kind
    return found


def _examine_config(found: Examination) -> None:
    try:
        fields = parse_object((found.folder / CONFIG).read_bytes())
    except FileNotFoundError:
        return found.complain("config", f"{found.folder} holds no {CONFIG}", CONFIG)
    except OSError as error:
        return found.complain("config", f"{CONFIG} cannot be read: {error.strerror}", CONFIG)
    except ValueError as error:
        return found.complain("config", f"{CONFIG} {error}", CONFIG)
    found.layout = dialect_of(fields)
    found.config, problems = examine_config(fields)
    found.shapes = shapes_of(fields)
    for name, sentence in problems:
        found.defects.append(Defect("config", f"{CONFIG}: {sentence}", CONFIG, field=name))


def _is_other_layout(found: Examination) -> bool:
    """True, with a defect, where not one tensor has its layout's name but some the other's."""
    assert found.shapes is not None
    names = found.tensors.keys()
    if any(stored.name in names for stored in stored_table(found.shapes, found.layout)):
        return False
    other = LAYOUTS[1 - LAYOUTS.index(found.layout)]
    for stored in stored_table(found.shapes, other):
        if stored.name in names:
            file = found.tensors[stored.name].file.name
            what = f"is written as in the {TITLES[found.layout]} layout, but {file} names its"
            what += f" tensors as in the {TITLES[other]} layout ({stored.name})"
            found.complain("layout", f"{CONFIG} {what}", file, stored.name)
            return True
    return False


def _compare_names(found: Examination, files: list[Path] | None) -> None:
    """Find missing and unknown names; `files` is None where some could not be read."""
    assert found.shapes is not None
    expected = {stored.name for stored in stored_table(found.shapes, found.layout)}
    dequantized = {name for name in found.tensors if DEQUANTIZED.fullmatch(name)}
    if found.layout == "original":
        dequantized = set()
    for name in sorted(dequantized):
        located = found.tensors[name]
        what = f"holds experts dequantized to {located.dtype}; save them in MXFP4, as published"
        what = f"tensor {name} in {located.file.name} {what}"
        found.complain("dtype", what, located.file.name, name)
    packed = {f"{name}_{part}" for name in dequantized for part in ("blocks", "scales")}
    if files is not None:
        first = files[0].name
        where = first if len(files) == 1 else f"all {len(files)} files, {first} ..."
        for stored in stored_table(found.shapes, found.layout):
            if stored.name not in found.tensors and stored.name not in packed:
                what = f"tensor {stored.name} is missing from {where}"
                found.complain("missing", what, first, stored.name)
    for name in sorted(found.tensors.keys() - expected - dequantized):
        file = found.tensors[name].file.name
        what = f"tensor {printable(name)} in {file} is not one of a gpt-oss model"
        found.complain("unknown", what, file, name)


def _compare_tensors(found: Examination) -> None:
    assert found.shapes is not None
    scales = []
    for stored in stored_table(found.shapes, found.layout):
        located = found.tensors.get(stored.name)
        if located is None:
            continue
        where = f"tensor {stored.name} in {located.file.name}"
        if located.dtype != stored.dtype:
            what = f"{where} is {located.dtype}, not {stored.dtype}"
            found.complain("dtype", what, located.file.name, stored.name)
        if located.shape != stored.shape:
            what = f"{where} has shape {list(located.shape)}, not {list(stored.shape)}"
            found.complain("shape", what, located.file.name, stored.name)
        if located.dtype == "U8" and stored.name.endswith("scales"):
            scales.append((stored, located))
    _examine_scales(found, scales)


def _examine_scales(found: Examination, scales: list[tuple[StoredTensor, Located]]) -> None:
    total = sum(located.end - located.start for _, located in scales)
    quiet = True if total < PROGRESS_BYTES else None  # None: shown on a terminal only
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="scale bytes", disable=quiet, leave=False
    ) as bar:
        for stored, located in scales:
            count, first = 0, -1
            for offset, chunk in _chunks(located):
                if (position := chunk.find(NAN_SCALE)) >= 0:
                    first = offset + position if first < 0 else first
                    count += chunk.count(NAN_SCALE)
                bar.update(len(chunk))
            if count:
                what = f"holds {count:,} NaN scale bytes (255), the first at byte {first:,} of it"
                what = f"tensor {stored.name} in {located.file.name} {what}"
                found.complain("scale", what, located.file.name, stored.name)


def _chunks(located: Located) -> Iterator[tuple[int, bytes]]:
    with located.file.open("rb") as stream:
        stream.seek(located.start)
        for offset in range(0, located.end - located.start, READ_BYTES):
            yield offset, stream.read(min(READ_BYTES, located.end - located.start - offset))
