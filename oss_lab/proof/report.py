"""The parity tables: one row per point, one column per setting, the worst layer in each cell."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from oss_lab.hooks.points import POINTS
from oss_lab.proof.run import Proof
from oss_lab.proof.transformers_forward import describe_location


def build_numpy_table(proofs: Sequence[Proof]) -> Table:
    """The largest difference of a token in each setting, and the smallest cosine for each dtype."""
    table = new_table(
        "Largest difference of a token's vector relative to the RMS norm, worst layer"
    )
    for proof in proofs:
        setting = proof.setting
        table.add_column(f"{setting.seq}\n{setting.dtype}\n{setting.kernels}", no_wrap=True)
    dtypes = list(dict.fromkeys(proof.setting.dtype for proof in proofs))
    for dtype in dtypes:
        table.add_column(f"cosine\n{dtype}", no_wrap=True)
    for point in POINTS:
        cosines = (format_worst_cosine(proofs, dtype, point) for dtype in dtypes)
        table.add_row(point, *(format_cell(proof, point) for proof in proofs), *cosines)
    return table


def build_transformers_table(proofs: Sequence[Proof]) -> Table:
    """The same for transformers, with where it has each point or why it does not."""
    table = new_table("The same compared with transformers, which chooses its own experts")
    for proof in proofs:
        table.add_column(f"{proof.setting.seq}\n{proof.setting.dtype}", no_wrap=True)
    table.add_column("cosine", no_wrap=True)
    table.add_column("where transformers has it", no_wrap=True)
    for point in POINTS:
        cosine = format_worst_cosine(proofs, "float32", point)
        table.add_row(
            point,
            *(format_cell(proof, point) for proof in proofs),
            cosine,
            describe_location(point),
        )
    return table


def new_table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("point", no_wrap=True)
    return table


def format_cell(proof: Proof, point: str) -> str:
    """The worst layer of a point, or "-" if the point is left out in this setting."""
    found = [each for each in proof.comparisons if each.point == point]
    if not found:
        return "-"
    failed = "" if all(each.passed for each in found) else " !"
    return f"{max(each.apart for each in found):.0e}{failed}"


def format_worst_cosine(proofs: Sequence[Proof], dtype: str, point: str) -> str:
    cosines = [
        each.cosine
        for proof in proofs
        if proof.setting.dtype == dtype
        for each in proof.comparisons
        if each.point == point
    ]
    return f"{min(cosines):.6f}" if cosines else "-"


def list_reasons(proofs: Sequence[Proof]) -> Iterator[str]:
    """Why cells are empty, one line per reason: `attn.scores, attn.pattern: too large`."""
    points: dict[str, dict[str, None]] = {}
    for proof in proofs:
        for point, reason in proof.setting.left_out.items():
            points.setdefault(reason, {})[point] = None
    for reason, names in points.items():
        yield f"{', '.join(names)}: {reason}"
