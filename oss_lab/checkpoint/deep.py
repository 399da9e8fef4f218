"""Find NaN and infinity in the weights of a checkpoint: reads every byte of it, without torch.

In BF16, a number with all exponent bits set is NaN or infinite. An MXFP4 scale byte of 255 makes
its block NaN, which `examine` finds. Scale bytes 253 and 254 give infinity for the largest codes.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt
from tqdm.auto import tqdm

from oss_lab.checkpoint.defects import KINDS, Examination
from oss_lab.checkpoint.fields import make_printable
from oss_lab.checkpoint.header import TensorLocation

PIECE_BYTES = 2**25
EXPONENT = 0x7F80  # of a BF16 number
# From this E2M1 code on, the number exceeds the largest BF16: 4 x 2^126 and 2 x 2^127.
INFINITE_CODE = {253: 6, 254: 4}


def find_non_finite(found: Examination) -> None:
    """Add a defect for every tensor with NaN or infinity. Tensors with other defects are skipped.

    Raises:
        OSError: a file cannot be read.
    """
    defective = {defect.tensor for defect in found.defects}
    tensors = [located for located in found.tensors.values() if located.name not in defective]
    total = sum(located.nbytes for located in tensors)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="weights", disable=None, leave=False
    ) as bar:  # disable=None: only show it in a terminal
        for located in tensors:
            if located.dtype == "BF16":
                _check_bf16(found, located, bar)
            elif located.name.endswith("scales"):
                _check_scales(found, located)
                bar.update(located.nbytes)
            else:
                bar.update(located.nbytes)
    found.defects.sort(key=lambda defect: KINDS.index(defect.kind))


def _check_bf16(found: Examination, located: TensorLocation, bar: "tqdm[Any]") -> None:
    nans, infinities, first = 0, 0, None
    for offset in range(0, located.nbytes, PIECE_BYTES):
        count = min(PIECE_BYTES, located.nbytes - offset)
        bits = np.fromfile(located.file, np.uint16, count=count // 2, offset=located.start + offset)
        bad = (bits & EXPONENT) == EXPONENT
        bar.update(count)
        if not bad.any():
            continue
        if first is None:
            first = offset // 2 + int(bad.argmax())
        is_infinite = (bits[bad] & ~np.uint16(0x8000)) == EXPONENT
        infinities += int(is_infinite.sum())
        nans += int((~is_infinite).sum())
    if first is not None:
        _add_defect(found, located, nans, infinities, first)


def _check_scales(found: Examination, scales: TensorLocation) -> None:
    """Find blocks whose numbers exceed the range of BF16."""
    bytes_ = np.fromfile(scales.file, np.uint8, count=scales.nbytes, offset=scales.start)
    suspects = np.flatnonzero((bytes_ == 253) | (bytes_ == 254))
    blocks = found.tensors.get(scales.name.removesuffix("scales") + "blocks")
    if not len(suspects) or blocks is None:
        return
    codes = np.memmap(blocks.file, np.uint8, "r", offset=blocks.start, shape=(len(bytes_), 16))
    bad = [int(n) for n in suspects if _has_infinity(codes[n], int(bytes_[n]))]
    if bad:
        _add_defect(found, scales, 0, len(bad), bad[0])


def _has_infinity(block: UInt[np.ndarray, "16"], scale: int) -> bool:
    largest = np.maximum(block & 7, (block >> 4) & 7)
    return bool((largest >= INFINITE_CODE[scale]).any())


def _add_defect(
    found: Examination, located: TensorLocation, nans: int, infinities: int, first: int
) -> None:
    index = [int(n) for n in np.unravel_index(first, located.shape)]
    counts = [f"{nans:,} NaN"] * bool(nans) + [f"{infinities:,} infinite"] * bool(infinities)
    unit = "blocks" if located.dtype == "U8" else "values"
    what = f"contains {' and '.join(counts)} {unit}, the first at index {index}"
    what = f"tensor {make_printable(located.name)} in {located.file.name} {what}"
    found.add_defect("value", what, located.file.name, located.name)
