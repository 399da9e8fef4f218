"""Find everything that is wrong with a checkpoint folder before any weight is used.

Only headers and the experts' scale bytes are read, without torch. Consequences of an earlier defect
are not reported. A tensor does not count as missing if a file with an unreadable header may contain
it. If the sizes in the configuration cannot be used, nothing is compared with them. Not checked:
NaN or infinity in BF16 weights (`deep.py` does that), and dtypes.json, which no reader needs.
"""

from collections.abc import Iterator
from pathlib import Path

from tqdm.auto import tqdm

from oss_lab.checkpoint.defects import KINDS, Defect, Examination
from oss_lab.checkpoint.dialects import dialect_of, examine_config, read_shapes_config
from oss_lab.checkpoint.fields import make_printable, parse_object
from oss_lab.checkpoint.folders import describe_unfinished
from oss_lab.checkpoint.header import TensorLocation
from oss_lab.checkpoint.layouts import LAYOUTS, TITLES, StoredTensor, stored_table
from oss_lab.checkpoint.recognize import find_replaced_files, recognize
from oss_lab.checkpoint.shards import compare_placement, read_index, read_shards
from oss_lab.checkpoint.storage import (
    FLOATS,
    find_expert_storage,
    find_experts_one_by_one,
    is_expert_weight,
)

CONFIG = "config.json"
NAN_SCALE = b"\xff"  # E8M0's only byte that is not a power of two
PROGRESS_BYTES = 64 * 2**20
READ_BYTES = 16 * 2**20


def examine(folder: Path, *, any_float: bool = False) -> Examination:
    """Check the checkpoint in `folder` for every kind of defect.

    Args:
        any_float: accept F16 and F32 instead of BF16, as `oss-lab convert` does.
    """
    found = Examination(folder)
    if other := recognize(folder):
        found.add_defect("folder", other, str(folder))
        return found
    if replaced := find_replaced_files(folder):
        for file, sentence in replaced:
            found.add_defect("file", sentence, file.name)
        return found
    _examine_contents(found, any_float)
    if unfinished := describe_unfinished(found):
        found.defects.insert(0, Defect("folder", unfinished, str(folder)))
    found.defects.sort(key=lambda defect: KINDS.index(defect.kind))  # stable within a kind
    return found


def _examine_contents(found: Examination, any_float: bool) -> None:
    folder = found.folder
    _examine_config(found)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return found.add_defect("folder", f"{folder} contains no .safetensors file", str(folder))
    indices = [read_index(found, file) for file in sorted(folder.glob("*.safetensors.index.json"))]
    unread = read_shards(found, files, indices)
    for index in indices:
        compare_placement(found, index, files, unread)
    find_expert_storage(found)
    refused = found.shapes is None or find_experts_one_by_one(found) or _is_other_layout(found)
    if not refused:
        _compare_names(found, None if unread else files)
        _compare_tensors(found, any_float)


def _examine_config(found: Examination) -> None:
    try:
        fields = parse_object((found.folder / CONFIG).read_bytes())
    except FileNotFoundError:
        return found.add_defect("config", f"{found.folder} contains no {CONFIG}", CONFIG)
    except OSError as error:
        return found.add_defect("config", f"{CONFIG} cannot be read: {error.strerror}", CONFIG)
    except ValueError as error:
        return found.add_defect("config", f"{CONFIG} {error}", CONFIG)
    found.layout = dialect_of(fields)
    found.config, problems = examine_config(fields)
    found.shapes = read_shapes_config(fields)
    for name, sentence in problems:
        found.defects.append(Defect("config", f"{CONFIG}: {sentence}", CONFIG, field=name))


def _is_other_layout(found: Examination) -> bool:
    """Whether tensors only have names of the other layout. If so, adds a defect."""
    assert found.shapes is not None
    names = found.tensors.keys()
    if any(stored.name in names for stored in stored_table(found.shapes, found.layout)):
        return False
    other = LAYOUTS[1 - LAYOUTS.index(found.layout)]
    for stored in stored_table(found.shapes, other):
        if stored.name in names:
            file = found.tensors[stored.name].file.name
            what = f"is that of the {TITLES[found.layout]} layout, but {file} names its"
            what += f" tensors as in the {TITLES[other]} layout ({stored.name})"
            found.add_defect("layout", f"{CONFIG} {what}", file, stored.name)
            return True
    return False


def _compare_names(found: Examination, files: list[Path] | None) -> None:
    """Find missing and unknown names. `files` is None if some files could not be read."""
    assert found.shapes is not None
    table = list(stored_table(found.shapes, found.layout, found.experts))
    is_mixed = any(defect.kind == "storage" for defect in found.defects)
    skipped = is_expert_weight if is_mixed else lambda name: False
    if files is not None:
        first = files[0].name
        where = first if len(files) == 1 else f"all {len(files)} files, {first} ..."
        for stored in table:
            if stored.name not in found.tensors and not skipped(stored.name):
                what = f"tensor {stored.name} is missing from {where}"
                found.add_defect("missing", what, first, stored.name)
    for name in sorted(found.tensors.keys() - {stored.name for stored in table}):
        if not skipped(name):
            file = found.tensors[name].file.name
            what = f"tensor {make_printable(name)} in {file} does not belong to a gpt-oss model"
            found.add_defect("unknown", what, file, name)


def _compare_tensors(found: Examination, any_float: bool) -> None:
    assert found.shapes is not None
    scales = []
    for stored in stored_table(found.shapes, found.layout, found.experts):
        located = found.tensors.get(stored.name)
        if located is None:
            continue
        where = f"tensor {make_printable(located.name)} in {located.file.name}"
        is_float = stored.dtype == "BF16" and located.dtype in FLOATS
        if located.dtype != stored.dtype and not (any_float and is_float):
            what = f"{where} is {located.dtype}, not {stored.dtype}"
            what += "; `oss-lab convert` rounds it" if is_float else ""
            found.add_defect("dtype", what, located.file.name, stored.name)
        if located.shape != stored.shape:
            what = f"{where} has shape {list(located.shape)}, not {list(stored.shape)}"
            is_per_expert = ".mlp." in stored.name and ".norm." not in stored.name
            if is_per_expert and located.shape[1:] == stored.shape[1:]:
                what += f"; all layers need {found.shapes.num_experts} experts, as in {CONFIG}"
            found.add_defect("shape", what, located.file.name, stored.name)
        if located.dtype == "U8" and stored.name.endswith("scales"):
            scales.append((stored, located))
    _examine_scales(found, scales)


def _examine_scales(found: Examination, scales: list[tuple[StoredTensor, TensorLocation]]) -> None:
    total = sum(located.nbytes for _, located in scales)
    quiet = True if total < PROGRESS_BYTES else None  # None: only show it in a terminal
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
                what = f"contains {count:,} NaN scale bytes (255), the first at its byte {first:,}"
                what += f", index {_find_index(first, located.shape)}"
                what = f"tensor {stored.name} in {located.file.name} {what}"
                found.add_defect("scale", what, located.file.name, stored.name)


def _find_index(position: int, shape: tuple[int, ...]) -> list[int]:
    """The index of a tensor's element, from its position in the file."""
    index = []
    for size in reversed(shape):
        position, n = divmod(position, size)
        index.insert(0, n)
    return index


def _chunks(located: TensorLocation) -> Iterator[tuple[int, bytes]]:
    with located.file.open("rb") as stream:
        stream.seek(located.start)
        for offset in range(0, located.nbytes, READ_BYTES):
            yield offset, stream.read(min(READ_BYTES, located.nbytes - offset))
