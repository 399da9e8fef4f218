"""Reads compiled code: registers, spills, shared memory, loads, matrix instructions."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from oss_kernels.gate.targets import CompileTarget

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Report:
    """Counts from one compiled kernel.

    Attributes:
        stack: bytes of local memory per thread. Anything but 0 is a spill, or an array that the
            compiler could not keep in registers.
        spills: instructions that access the stack (NVIDIA), or spilled registers (AMD).
        shared: bytes of shared memory per program.
        wide_loads: 128-bit loads from global memory, including asynchronous copies.
        loads: all loads from global memory.
        matrix: matrix instructions. `warp_group` counts those of a warp group (sm_90, sm_100).
        flushes: float32 instructions that flush subnormals to zero.
        copies: asynchronous copies to shared memory inside loops (NVIDIA).
        exchanges: instructions inside loops that move numbers between lanes: a change of layout or
            a reduction in every step.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    wide_loads: int
    loads: int
    matrix: int
    warp_group: int
    flushes: int
    copies: int
    exchanges: int


def find_loops(code: str, label: str) -> str:
    """The lines of assembly inside loops: from a label to a branch back to it.

    `label` is a pattern for the names of labels.
    """
    lines = code.splitlines()
    places = {
        found[1]: n for n, line in enumerate(lines) if (found := re.match(f"({label}):", line))
    }
    inside = set[int]()
    for n, line in enumerate(lines):
        found = re.search(rf"\b(?:bra|s_c?branch\w*)\S*\s+({label})", line)
        if found and places.get(found[1], n) < n:
            inside.update(range(places[found[1]], n))
    return "\n".join(lines[n] for n in sorted(inside))


def report(compiled: Any, target: CompileTarget) -> Report:
    shared = compiled.metadata.shared
    if target.backend == "hip":
        return read_amd(compiled.asm["amdgcn"], shared)
    return read_nvidia(compiled.asm["cubin"], compiled.asm["ptx"], shared)


def read_amd(assembly: str, shared: int) -> Report:
    """Read AMD's assembly, which ends with a description of the resources it uses."""

    def read_value(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        assert found, name
        return int(found[1])

    loads = re.findall(r"\b(?:global|buffer)_load_(\w+)", assembly)
    return Report(
        registers=read_value("vgpr_count"),
        stack=read_value("private_segment_fixed_size"),
        spills=read_value("vgpr_spill_count") + read_value("sgpr_spill_count"),
        shared=shared,
        wide_loads=sum(load.startswith(("dwordx4", "b128")) for load in loads),
        loads=len(loads),
        matrix=len(re.findall(r"\bv_(?:mfma|wmma)_", assembly)),
        warp_group=0,
        flushes=len(re.findall(r"\.amdhsa_float_denorm_mode_32 0\b", assembly)),
        copies=0,
        exchanges=len(
            re.findall(r"\bds_(?:write|store|b?permute)", find_loops(assembly, r"\.LBB\w+"))
        ),
    )


def read_nvidia(cubin: bytes, ptx: str, shared: int) -> Report:
    """Disassemble NVIDIA's code. Flushes of subnormals and loops are read from the PTX."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        sass, usage = run_cuobjdump("-sass", file.name), run_cuobjdump("-res-usage", file.name)

    loops = find_loops(ptx, r"\$L__BB\w+")

    def read_usage(name: str) -> int:
        found = re.search(rf"{name}:(\d+)", usage)
        assert found, name
        return int(found[1])

    def count(pattern: str) -> int:
        return len(re.findall(pattern, sass))

    return Report(
        registers=read_usage("REG"),
        stack=read_usage("STACK"),
        spills=count(r"\b(?:STL|LDL)\b"),
        shared=shared,
        wide_loads=count(r"\b(?:LDG|LDGSTS)\.\S*128\b"),
        loads=count(r"\b(?:LDG|LDGSTS)\."),
        matrix=count(r"\b(?:HMMA|HGMMA|UTCHMMA|QMMA|OMMA|UTC\w*MMA)\b"),
        warp_group=count(r"\b(?:HGMMA|UTC\w*MMA)\b"),
        flushes=len(re.findall(r"\.ftz\.f32", ptx)),
        copies=len(re.findall(r"\bcp\.async\.(?:c[ag]|bulk)\.", loops)),
        exchanges=len(re.findall(r"\b(?:st\.shared|stmatrix|shfl\.sync)\b", loops)),
    )


def run_cuobjdump(option: str, file: str) -> str:
    """Run cuobjdump on a file. It comes from Triton's wheel or is installed on the machine."""
    bundled = TOOLS / "cuobjdump"
    program = bundled if bundled.exists() else shutil.which("cuobjdump")
    if program is None:
        raise RuntimeError(
            "cuobjdump is neither in Triton's wheel nor on the PATH; install NVIDIA's CUDA toolkit"
        )
    done = subprocess.run([program, option, file], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
