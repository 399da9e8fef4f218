"""Every point of every layer against an independent forward; exit status 1 if any is off.

    python -m oss_lab.proof            nano, over lengths from 13 to 4,097
    python -m oss_lab.proof --quick    two lengths

The experts of the checkpoint stay packed in MXFP4; the independent forward decodes them itself and
computes in float64. Where transformers is installed its own figures are compared too. The last line
counts what passed.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from oss_lab.errors import LabError
from oss_lab.proof.report import against_numpy, against_transformers, reasons
from oss_lab.proof.run import prove
from oss_lab.proof.settings import BOUNDS, MOST
from oss_lab.proof.transformers_model import MISSING

WIDTH = 240  # columns: the table of all lengths, whatever the terminal holds


def main() -> int:
    parser = argparse.ArgumentParser(prog="oss_lab.proof", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="nano", help="a folder (default: nano)")
    parser.add_argument("--quick", action="store_true", help="two lengths")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every comparison")
    arguments = parser.parse_args()
    try:
        proofs = prove(arguments.checkpoint, quick=arguments.quick)
    except LabError as error:
        sys.exit(f"oss_lab.proof: {error}")
    console = Console(width=WIDTH)
    numpy = [proof for proof in proofs if proof.setting.against == "NumPy"]
    console.print(against_numpy(numpy))
    bounds = ", ".join(f"{bound:g} in {dtype}" for dtype, bound in BOUNDS.items())
    console.print(f"bounds: {bounds}; beyond {MOST:,} tokens they grow with the length")
    for line in reasons(numpy):
        console.print(f"- {line}", markup=False)
    if theirs := [proof for proof in proofs if proof.setting.against == "transformers"]:
        console.print(against_transformers(theirs))
    else:
        console.print(f"not compared with transformers: {MISSING}", markup=False)
    for proof in proofs:
        for each in proof.comparisons:
            if not each.passed:
                console.print(f"FAILED {proof.setting}: {each}", markup=False)
        for name, held in proof.identities.items():
            if not held:
                console.print(f"FAILED {proof.setting}: {name}", markup=False)
    if arguments.json:
        rows = [
            {"setting": str(proof.setting), **asdict(each)}
            for proof in proofs
            for each in proof.comparisons
        ]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    failed = sum(proof.failed for proof in proofs)
    print(f"{sum(proof.count for proof in proofs) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
