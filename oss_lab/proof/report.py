"""The parity tables: one row per point, one column per length, the worst layer in each cell."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table

from oss_lab.hooks.points import POINTS
from oss_lab.proof.run import Proof
from oss_lab.proof.transformers_forward import describe_location

WIDTH = 80  # columns; each table is narrower


LEGEND = (
    "Each column is a number of tokens. Cells: the largest difference of a token's vector, relative"
    " to the RMS norm of the vectors, in the worst layer; cosine: the smallest of all columns."
)


def build_tables(proofs: Sequence[Proof]) -> Iterator[tuple[str, Table]]:
    """Titles and tables: one per precision and kernels, and two for transformers if compared."""
    ordered = sorted(proofs, key=sort_key)
    for (against, dtype, kernels), group in groupby(ordered, sort_key):
        title = f"{dtype}, {kernels} kernels, compared with {against}"
        if against == "transformers":
            title += ", which chooses its own experts"
        yield title, build_table(list(group))
    if any(proof.setting.against == "transformers" for proof in proofs):
        table = make_table()
        table.add_column("place")
        for point in POINTS:
            table.add_row(point, describe_location(point))
        yield "where transformers has each point", table


def sort_key(proof: Proof) -> tuple[str, str, str]:
    """What all columns of a table have in common. NumPy is first, and float32 is last."""
    setting = proof.setting
    return setting.against, setting.dtype, setting.kernels


def build_table(proofs: Sequence[Proof]) -> Table:
    """One row per point and one column per length."""
    table = make_table()
    for proof in proofs:
        table.add_column(f"{proof.setting.seq:,}", no_wrap=True)
    table.add_column("cosine", no_wrap=True)
    for point in POINTS:
        cells = (format_cell(proof, point) for proof in proofs)
        table.add_row(point, *cells, format_worst_cosine(proofs, point))
    return table


def make_table() -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("point", no_wrap=True)
    return table


def format_cell(proof: Proof, point: str) -> str:
    """The worst layer of a point, or "-" if the point is left out in this setting."""
    found = [each for each in proof.comparisons if each.point == point]
    if not found:
        return "-"
    failed = "" if all(each.passed for each in found) else " !"
    return f"{max(each.apart for each in found):.0e}{failed}"


def format_worst_cosine(proofs: Sequence[Proof], point: str) -> str:
    cosines = [each.cosine for proof in proofs for each in proof.comparisons if each.point == point]
    return f"{min(cosines):.6f}" if cosines else "-"


def list_reasons(proofs: Sequence[Proof]) -> Iterator[str]:
    """Why cells are empty, one line per reason: `attn.scores, attn.pattern: too large`."""
    points: dict[str, dict[str, None]] = {}
    for proof in proofs:
        for point, reason in proof.setting.left_out.items():
            points.setdefault(reason, {})[point] = None
    for reason, names in points.items():
        yield f"{', '.join(names)}: {reason}"


def list_failures(proofs: Sequence[Proof]) -> Iterator[str]:
    """One line per comparison or identity that failed."""
    for proof in proofs:
        for each in proof.comparisons:
            if not each.passed:
                yield f"FAILED {proof.setting}: {each}"
        for name, held in proof.identities.items():
            if not held:
                yield f"FAILED {proof.setting}: {name}"
