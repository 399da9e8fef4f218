"""Compare every point of every layer with an independent forward pass.

    python -m oss_lab.proof            nano, lengths from 13 to 4,097 tokens; one to three minutes
    python -m oss_lab.proof --quick    two lengths

The checkpoint's experts stay packed in MXFP4. The independent forward pass decodes them with
separate code and computes in float64. If transformers is installed, its values are compared too.
The last line counts what passed; the exit status is 1 if anything failed, or 141 for a closed pipe.
"""

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from oss_lab.checkpoint.atomic import check_output_file
from oss_lab.cli._options import announce_replacement
from oss_lab.cli._pipe import make_console, run_program
from oss_lab.errors import LabError
from oss_lab.proof.report import LEGEND, WIDTH, build_tables, list_failures, list_reasons
from oss_lab.proof.run import Proof, prove
from oss_lab.proof.settings import BOUNDS, LONGEST_UNSCALED
from oss_lab.proof.transformers_model import MISSING


def main() -> int:
    parser = argparse.ArgumentParser(prog="oss_lab.proof", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="nano", help="a folder (default: nano)")
    parser.add_argument("--quick", action="store_true", help="two lengths")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every comparison")
    arguments = parser.parse_args()
    try:
        if arguments.json:
            check_output_file(arguments.json, "--json")
        proofs = prove(arguments.checkpoint, quick=arguments.quick)
    except LabError as error:
        sys.exit(f"oss_lab.proof: {error}")
    print_tables(proofs)
    if arguments.json:
        write_comparisons(proofs, arguments.json)
    failed = sum(proof.failed for proof in proofs)
    print(f"{sum(proof.count for proof in proofs) - failed} passed, {failed} failed")
    return 1 if failed else 0


def print_tables(proofs: list[Proof]) -> None:
    """Print the tables, what they leave out, and what failed, in WIDTH columns."""
    console = make_console(width=WIDTH)
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and columns < WIDTH:
        note = f"These tables need {WIDTH} columns; this terminal has {columns}."
        console.print(note, highlight=False)
    console.print(LEGEND, "", sep="\n", highlight=False)
    for title, table in build_tables(proofs):
        console.print(title, highlight=False)
        console.print(table)
        console.print()
    bounds = ", ".join(f"{bound:g} in {dtype}" for dtype, bound in BOUNDS.items())
    console.print(f"bounds: {bounds}; above {LONGEST_UNSCALED:,} tokens they grow with the length")
    for line in list_reasons([proof for proof in proofs if proof.setting.against == "NumPy"]):
        console.print(f"- {line}", markup=False)
    if all(proof.setting.against == "NumPy" for proof in proofs):
        console.print(f"not compared with transformers: {MISSING}", markup=False)
    for line in list_failures(proofs):
        console.print(line, markup=False)


def write_comparisons(proofs: list[Proof], file: Path) -> None:
    """Write every comparison as JSON."""
    rows = [
        {"setting": str(proof.setting), **asdict(each)}
        for proof in proofs
        for each in proof.comparisons
    ]
    with announce_replacement(file):
        file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_program(main))
