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
    if "matrix instructions" in case.needs:
        warp_group = target.name in WARP_GROUP_TARGETS
        if not any(report.warp_group if warp_group else report.matrix for report in reports):
            found.append("has no matrix instructions" + " of a warp group" * warp_group)
    return found
