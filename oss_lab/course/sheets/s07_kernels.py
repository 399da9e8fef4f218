"""Exercises of 07_kernels: three kernels, graded by what they store and the bytes they move."""

from collections.abc import Iterator
from typing import Any

import torch

from oss_lab.course import tile_language as tl
from oss_lab.course.count_bytes import count_bytes
from oss_lab.course.exercise import Exercise, Function, Sheet

TL = "from oss_lab.course import tile_language as tl"


class Programs(int):
    """The number of programs to run, which a diagnosis shows as such."""

    def __repr__(self) -> str:
        return f"{int(self)} program{'s' if self != 1 else ''}"


def launch(kernel: Function, arguments: tuple[Any, ...]) -> tuple[str, str, torch.Tensor]:
    """The bytes that a kernel loads and stores, and what it stores in `out`, its last tensor.

    The first argument is the number of programs.
    """
    programs, *given = arguments
    moved = count_bytes(kernel, programs, *given)
    out = next(each for each in reversed(given) if isinstance(each, torch.Tensor))
    loaded, stored = sum(moved.loaded.values()), sum(moved.stored.values())
    return f"loads {loaded} bytes", f"stores {stored} bytes", out


def empty(*shape: int) -> torch.Tensor:
    """What a kernel must fill: a place that it forgets stays infinite."""
    return torch.full(shape, float("inf"))


def my_add(x, y, out, n, BLOCK: tl.constexpr):
    """Add two vectors: out = x + y. One program adds BLOCK numbers.

    x, y, out: addresses of n numbers. The programs together have n lanes or more.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    total = tl.load(x + place, mask=inside) + tl.load(y + place, mask=inside)
    tl.store(out + place, total, mask=inside)


def add_from(start, x, y, out, n, block):
    """The vector addition that starts at any place; used by the wrong solutions."""
    place = start + tl.arange(0, block)
    inside = place < n
    total = tl.load(x + place, mask=inside) + tl.load(y + place, mask=inside)
    tl.store(out + place, total, mask=inside)


def every_program_the_same(x, y, out, n, BLOCK: tl.constexpr):
    """All your programs add the same numbers. A program finds its own part with
    `tl.program_id(0)`.
    """
    add_from(0, x, y, out, n, BLOCK)


def overlapping_programs(x, y, out, n, BLOCK: tl.constexpr):
    """Your programs start one number apart, so they overlap. The next one starts BLOCK numbers
    later: multiply the program's index by BLOCK.
    """
    add_from(tl.program_id(0), x, y, out, n, BLOCK)


def loaded_twice(x, y, out, n, BLOCK: tl.constexpr):
    """The numbers are right, but you load some more than once. Load each number once, and keep it
    in a variable.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.load(x + place, mask=place < n)
    my_add(x, y, out, n, BLOCK)


def last_number_masked(x, y, out, n, BLOCK: tl.constexpr):
    """Your mask leaves out the last number. Places count from 0, so the last is n - 1, and the
    mask is `place < n`.
    """
    my_add(x, y, out, n - 1, BLOCK)


def whole_blocks_only(x, y, out, n, BLOCK: tl.constexpr):
    """You leave out the last block if it is not full. Its program must run; the mask switches off
    the lanes that are too many.
    """
    if (tl.program_id(0) + 1) * BLOCK <= n:
        my_add(x, y, out, n, BLOCK)


def add_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(0)
    for programs, n, block in ((1, 8, 8), (3, 20, 8), (4, 64, 16)):
        x, y = torch.randn(2, n, generator=draw)
        yield Programs(programs), x, y, empty(n), n, block


def my_decode_block(blocks, scales, out):
    """Decode MXFP4: one program writes the 32 numbers of one block.

    blocks: address of 16 bytes per block; the low four bits of a byte are the first number.
    scales: address of one byte per block, for 2 ** (byte - 127).
    out: address of 32 float32 per block.
    """
    block = tl.program_id(0)
    byte, half = tl.arange(0, 16), tl.arange(0, 2)
    pair = tl.load(blocks + block * 16 + byte).to(tl.int32)
    code = (pair[:, None] >> 4 * half[None, :]) & 15  # [16, 2]
    mantissa, exponent = code & 1, (code >> 1) & 3
    normal = (1 + 0.5 * mantissa) * tl.exp2(exponent - 1.0)
    size = tl.where(exponent == 0, 0.5 * mantissa, normal)
    scale = tl.exp2(tl.load(scales + block).to(tl.float32) - 127)
    place = block * 32 + 2 * byte[:, None] + half[None, :]
    tl.store(out + place, tl.where(code < 8, size, -size) * scale)


def decode_wrongly(blocks, scales, out, mistake):
    """`my_decode_block` with one mistake, by the name of a wrong solution."""
    block = tl.program_id(0)
    byte, half = tl.arange(0, 16), tl.arange(0, 2)
    pair = tl.load(blocks + block * 16 + byte).to(tl.int32)
    if mistake == "byte_loaded_twice":
        pair = tl.load(blocks + block * 16 + byte).to(tl.int32)
    shift = 1 - half if mistake == "high_half_first" else half
    code = (pair[:, None] >> 4 * shift[None, :]) & 15
    mantissa, exponent = code & 1, (code >> 1) & 3
    size = (1 + 0.5 * mantissa) * tl.exp2(exponent - 1.0)
    if mistake != "half_lost":
        size = tl.where(exponent == 0, 0.5 * mantissa, size)
    place = block * 32 + 2 * byte[:, None] + half[None, :]
    at = block + 0 * place if mistake == "scale_for_every_weight" else block
    bias = 128 if mistake == "scale_one_off" else 127
    scale = tl.exp2(tl.load(scales + at).to(tl.float32) - bias)
    signed = size if mistake == "sign_ignored" else tl.where(code < 8, size, -size)
    tl.store(out + place, signed * scale)


def scale_for_every_weight(blocks, scales, out):
    """The numbers are right, but you load the scale 32 times per block. All 32 numbers share it:
    load it once. You move 48 bytes where 17 are enough.
    """
    decode_wrongly(blocks, scales, out, "scale_for_every_weight")


def byte_loaded_twice(blocks, scales, out):
    """The numbers are right, but you load every byte twice, once for each half. Load it once, and
    take both halves from it.
    """
    decode_wrongly(blocks, scales, out, "byte_loaded_twice")


def high_half_first(blocks, scales, out):
    """You took the high four bits of a byte as the first number. The low ones come first. nano then
    answers nothing right.
    """
    decode_wrongly(blocks, scales, out, "high_half_first")


def half_lost(blocks, scales, out):
    """You treat exponent 0 like the others. There the number is 0 or 0.5: half the mantissa,
    without the 1 in front.
    """
    decode_wrongly(blocks, scales, out, "half_lost")


def scale_one_off(blocks, scales, out):
    """All your numbers are too small by a factor of two: the scale is 2 ** (byte - 127). nano then
    answers nothing right.
    """
    decode_wrongly(blocks, scales, out, "scale_one_off")


def sign_ignored(blocks, scales, out):
    """You ignore the sign, the highest of the four bits: codes 8 to 15 are negative. nano then
    answers nothing right.
    """
    decode_wrongly(blocks, scales, out, "sign_ignored")


def decode_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(1)
    every = torch.arange(16, dtype=torch.uint8) * 17  # each code twice in one byte
    yield Programs(1), every, torch.tensor([127], dtype=torch.uint8), empty(32)
    for blocks in (1, 3):
        codes = torch.randint(0, 256, (blocks, 16), dtype=torch.uint8, generator=draw)
        scales = torch.randint(120, 130, (blocks,), dtype=torch.uint8, generator=draw)
        yield Programs(blocks), codes, scales, empty(blocks, 32)


def my_two_tokens(x, weight, out, columns, rows, COLUMNS: tl.constexpr):
    """Multiply one matrix with two tokens: out[t, r] = sum of weight[r] * x[t]. A program is a row.

    x: address of [2, columns]. weight: address of [rows, columns]. out: address of [2, rows].
    COLUMNS: a power of two, at least `columns`.
    """
    row = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    inside = column < columns
    numbers = tl.load(weight + row * columns + column, mask=inside)
    for token in range(2):
        values = tl.load(x + token * columns + column, mask=inside)
        tl.store(out + token * rows + row, tl.sum(numbers * values, axis=0))


def weight_loaded_for_each_token(x, weight, out, columns, rows, COLUMNS: tl.constexpr):
    """The numbers are right, but you load the row of weights once per token. Load it once and use
    it for both: that is why a server answers many users at once.
    """
    column = tl.arange(0, COLUMNS)
    tl.load(weight + tl.program_id(0) * columns + column, mask=column < columns)
    my_two_tokens(x, weight, out, columns, rows, COLUMNS)


def one_token_twice(x, weight, out, columns, rows, COLUMNS: tl.constexpr):
    """You multiply the first token twice. The second one starts `columns` numbers later."""
    two_products(x, 0, weight, out, columns, rows, COLUMNS)


def tokens_interleaved(x, weight, out, columns, rows, COLUMNS: tl.constexpr):
    """You store the two results of a row next to each other. `out` is [2, rows]: all rows of the
    first token, then all of the second.
    """
    two_products(x, columns, weight, out, columns, rows, COLUMNS, interleaved=True)


def first_row_only(x, weight, out, columns, rows, COLUMNS: tl.constexpr):
    """All your programs read the first row. Row r starts at r * columns, without the padding."""
    two_products(x, columns, weight, out, columns, rows, COLUMNS, row_step=0)


def two_products(x, step, weight, out, columns, rows, size, *, row_step=None, interleaved=False):
    """`my_two_tokens` with other steps; used by the wrong solutions."""
    row, column = tl.program_id(0), tl.arange(0, size)
    start = row * (columns if row_step is None else row_step)
    numbers = tl.load(weight + start + column, mask=column < columns)
    for token in range(2):
        values = tl.load(x + token * step + column, mask=column < columns)
        place = 2 * row + token if interleaved else token * rows + row
        tl.store(out + place, tl.sum(numbers * values, axis=0))


def two_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(2)
    for rows, columns, size in ((1, 4, 4), (3, 5, 8), (4, 12, 16)):
        x = torch.randn(2, columns, generator=draw)
        weight = torch.randn(rows, columns, generator=draw)
        yield Programs(rows), x, weight, empty(2, rows), columns, rows, size


SHEET = Sheet(
    lesson="07_kernels",
    title="Exercises: kernels",
    text=(
        "Read [07_kernels](../07_kernels.ipynb) first. The checker of a kernel compares what it"
        " stores, and how many bytes it loads and stores: the right numbers with too many bytes are"
        " not enough. Here `tl` is the course's part of Triton's language, so you need no Triton."
    ),
    exercises=(
        Exercise(
            title="Add two vectors",
            text=(
                "Write a kernel that adds two vectors. The last program may have more lanes than"
                " numbers are left; a mask switches them off."
            ),
            solution=my_add,
            cases=add_cases,
            misconceptions=(
                every_program_the_same,
                overlapping_programs,
                loaded_twice,
                last_number_masked,
                whole_blocks_only,
            ),
            hints=(
                "Each program needs the places of its numbers. Which ones does program 2 add?",
                "`tl.arange(0, BLOCK)` is [BLOCK]. So are the places, the mask and the sums.",
                "place = index of the program * BLOCK + tl.arange(0, BLOCK); load x + place and"
                " y + place with mask=place < n; store the sum at out + place with the same mask.",
            ),
            minutes=8,
            difficulty=1,
            imports=TL,
            call=launch,
        ),
        Exercise(
            title="Decode a block",
            text=(
                "Write a kernel that decodes MXFP4 ([06_mxfp4](../06_mxfp4.ipynb)): one program"
                " writes the 32 numbers of one block. Load every byte once. A block has 17."
            ),
            solution=my_decode_block,
            cases=decode_cases,
            misconceptions=(
                scale_for_every_weight,
                byte_loaded_twice,
                high_half_first,
                half_lost,
                scale_one_off,
                sign_ignored,
            ),
            hints=(
                "Load 16 bytes and one scale. From each byte you get two codes, the low half"
                " first.",
                "The bytes are [16] and the codes [16, 2]: `pair[:, None] >> 4 * half[None, :]`"
                " with half = tl.arange(0, 2), and the lowest four bits of that. First convert the"
                " bytes with `.to(tl.int32)`.",
                "mantissa = code & 1; exponent = (code >> 1) & 3; the size is 0.5 * mantissa where"
                " exponent is 0, and (1 + 0.5 * mantissa) * 2 ** (exponent - 1) elsewhere; codes"
                " from 8 on are negative; multiply by tl.exp2(scale - 127); store at block * 32 +"
                " 2 * byte + half.",
            ),
            minutes=15,
            difficulty=3,
            imports=TL,
            call=launch,
        ),
        Exercise(
            title="Two tokens for the price of one",
            text=(
                "Write a kernel that multiplies one matrix with two tokens. The weights are most of"
                " the bytes: load each of them once."
            ),
            solution=my_two_tokens,
            cases=two_cases,
            misconceptions=(
                weight_loaded_for_each_token,
                one_token_twice,
                tokens_interleaved,
                first_row_only,
            ),
            hints=(
                "A program computes one row of the matrix for both tokens. What can it keep while"
                " it does the second?",
                "The row of weights is [COLUMNS], masked from `columns` on. A token is [COLUMNS],"
                " too, and their product has one sum.",
                "Load weight + row * columns + column before the loop; in `for token in range(2)`"
                " load x + token * columns + column, and store tl.sum(numbers * values, axis=0) at"
                " out + token * rows + row.",
            ),
            minutes=10,
            difficulty=2,
            imports=TL,
            call=launch,
        ),
    ),
)
