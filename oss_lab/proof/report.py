"""The parity table: a point a row, a setting a column, the worst layer in each cell."""

from collections.abc import Sequence

from rich.table import Table

from oss_lab.points import POINTS
from oss_lab.proof.run import Proof


def table(proofs: Sequence[Proof]) -> Table:
    """Largest token's difference, and the worst token's cosine over all settings of a precision."""
    shown = Table(
        title="Largest token's difference over a token's length, worst layer",
        box=None,
        pad_edge=False,
    )
    shown.add_column("point", no_wrap=True)
    for proof in proofs:
        setting = proof.setting
        shown.add_column(f"{setting.seq}\n{setting.dtype}\n{setting.kernels}", no_wrap=True)
    dtypes = list(dict.fromkeys(proof.setting.dtype for proof in proofs))
    for dtype in dtypes:
        shown.add_column(f"cosine\n{dtype}", no_wrap=True)
    for point in POINTS:
        cosines = (worst_cosine(proofs, dtype, point) for dtype in dtypes)
        shown.add_row(point, *(cell(proof, point) for proof in proofs), *cosines)
    return shown


def cell(proof: Proof, point: str) -> str:
    """The worst layer of a point; "-" where the backend does not show it."""
    found = [each for each in proof.comparisons if each.point == point]
    if not found:
        return "-"
    failed = "" if all(each.passed for each in found) else " !"
    return f"{max(each.apart for each in found):.0e}{failed}"


def worst_cosine(proofs: Sequence[Proof], dtype: str, point: str) -> str:
    cosines = [
        each.cosine
        for proof in proofs
        if proof.setting.dtype == dtype
        for each in proof.comparisons
        if each.point == point
    ]
    return f"{min(cosines):.6f}"
