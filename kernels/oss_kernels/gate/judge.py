"""What is wrong with compiled code, as phrases. An empty list passes the gate."""

from oss_kernels.cases import Case
from oss_kernels.gate.report import Report
from oss_kernels.gate.targets import CompileTarget

WARP_GROUP_TARGETS = ("sm_90", "sm_100")


def find_complaints(case: Case, reports: list[Report], target: CompileTarget) -> list[str]:
    """The complaints about a case, from one report per launch."""
    found: list[str] = []
    for report in reports:
        if report.stack or report.spills:
            found.append(f"spills {report.stack} bytes per thread in {report.spills} instructions")
        if report.shared > target.shared:
            found.append(f"needs {report.shared} bytes of shared memory, but has {target.shared}")
        if "subnormals" in case.needs and report.flushes:
            found.append(f"flushes subnormals in {report.flushes} instructions")
    if "wide loads" in case.needs and not any(report.wide_loads for report in reports):
        found.append("has no 128-bit load")
    # On AMD these loops have one step in flight, loaded into registers (`launch.adapt_constants`).
    has_copies = target.backend == "cuda"
    if has_copies and "asynchronous copies" in case.needs and not any(r.copies for r in reports):
        found.append("has no asynchronous copy in a loop")
    # A step has 32 groups. The 64 lanes of a gfx942 wave share them, and exchange activations.
    exchanges = sum(report.exchanges for report in reports)
    if target.warp == 32 and "no lane exchanges" in case.needs and exchanges:
        found.append(f"moves numbers between lanes in {exchanges} instructions of a loop")
    if "matrix instructions" in case.needs:
        warp_group = target.name in WARP_GROUP_TARGETS
        if not any(report.warp_group if warp_group else report.matrix for report in reports):
            found.append("has no matrix instructions" + " of a warp group" * warp_group)
    return found
