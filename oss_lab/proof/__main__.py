"""Compare every point of every layer with an independent forward pass.

    python -m oss_lab.proof            nano, lengths from 13 to 4,097 tokens
    python -m oss_lab.proof --quick    two lengths

The checkpoint's experts stay packed in MXFP4. The independent forward pass decodes them with
separate code and computes in float64. If transformers is installed, its values are compared too.
The last line counts what passed; the exit status is 1 if anything failed.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from oss_lab.errors import LabError
from oss_lab.proof.report import build_numpy_table, build_transformers_table, list_reasons
from oss_lab.proof.run import prove
from oss_lab.proof.settings import BOUNDS, LONGEST_UNSCALED
from oss_lab.proof.transformers_model import MISSING

WIDTH = 240  # columns that the table of all lengths needs, whatever the width of the terminal


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
    console.print(build_numpy_table(numpy))
    bounds = ", ".join(f"{bound:g} in {dtype}" for dtype, bound in BOUNDS.items())
    console.print(f"bounds: {bounds}; above {LONGEST_UNSCALED:,} tokens they grow with the length")
    for line in list_reasons(numpy):
        console.print(f"- {line}", markup=False)
    if theirs := [proof for proof in proofs if proof.setting.against == "transformers"]:
        console.print(build_transformers_table(theirs))
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
