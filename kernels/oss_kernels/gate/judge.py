"""What is wrong with compiled code, in sentences; none is what the gate wants."""

from oss_kernels.cases import Case
from oss_kernels.gate.report import Report
from oss_kernels.gate.targets import Target

WARP_GROUP_TARGETS = ("sm_90", "sm_100")


def complaints(case: Case, reports: list[Report], target: Target) -> list[str]:
    """Of the code of a case's launches, one report each."""
    said: list[str] = []
    for report in reports:
        if report.stack or report.spills:
            said.append(f"spills {report.stack} bytes a thread in {report.spills} instructions")
        if report.shared > target.shared:
            said.append(f"wants {report.shared} bytes of shared memory, {target.shared} are there")
        if "subnormals" in case.needs and report.flushes:
            said.append(f"flushes subnormals in {report.flushes} instructions")
    if "wide loads" in case.needs and not any(report.wide_loads for report in reports):
        said.append("has no load of 128 bits")
    if "matrix instructions" in case.needs:
        warp_group = target.name in WARP_GROUP_TARGETS
        if not any(report.warp_group if warp_group else report.matrix for report in reports):
            said.append("has no matrix instructions" + " of a warp group" * warp_group)
    return said
