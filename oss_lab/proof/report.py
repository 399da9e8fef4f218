"""The parity tables: a point a row, a setting a column, the worst layer in each cell."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from oss_lab.hooks.points import POINTS
from oss_lab.proof.run import Proof
from oss_lab.proof.transformers_forward import whereabouts


def against_numpy(proofs: Sequence[Proof]) -> Table:
    """Largest token's difference, and the worst token's cosine over all settings of a precision."""
    shown = parity("Largest token's difference over a token's length, worst layer")
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


def against_transformers(proofs: Sequence[Proof]) -> Table:
    """The same against transformers, and where it has each point or why it does not."""
    shown = parity("The same against transformers, which chooses its experts itself")
    for proof in proofs:
        shown.add_column(f"{proof.setting.seq}\n{proof.setting.dtype}", no_wrap=True)
    shown.add_column("cosine", no_wrap=True)
    shown.add_column("where transformers has it", no_wrap=True)
    for point in POINTS:
        cosine = worst_cosine(proofs, "float32", point)
        shown.add_row(point, *(cell(proof, point) for proof in proofs), cosine, whereabouts(point))
    return shown


def parity(title: str) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown.add_column("point", no_wrap=True)
    return shown


def cell(proof: Proof, point: str) -> str:
    """The worst layer of a point; "-" where it is left out."""
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
    return f"{min(cosines):.6f}" if cosines else "-"


def reasons(proofs: Sequence[Proof]) -> Iterator[str]:
    """Why cells are empty, a line for each reason: `attn.scores, attn.pattern: too large`."""
    points: dict[str, dict[str, None]] = {}
    for proof in proofs:
        for point, reason in proof.setting.left_out.items():
            points.setdefault(reason, {})[point] = None
    for reason, names in points.items():
        yield f"{', '.join(names)}: {reason}"
