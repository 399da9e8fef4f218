"""What compiled code shows: registers, spills, shared memory, loads, matrix instructions."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from oss_kernels.gate.targets import Target

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Report:
    """Counts from one compiled kernel.

    Attributes:
        stack: bytes of local memory a thread; anything but 0 is a spill (or an array that the
            compiler could not keep in registers).
        spills: instructions (NVIDIA) or registers (AMD) that go to it.
        shared: bytes a program.
        wide_loads: loads of 128 bits from global memory, asynchronous copies included.
        loads: all loads from global memory.
        matrix: matrix instructions; `warp_group` those of a whole warp group (sm_90, sm_100).
        flushes: float32 instructions that flush subnormals to zero.
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


def report(compiled: Any, target: Target) -> Report:
    shared = compiled.metadata.shared
    if target.backend == "hip":
        return amd(compiled.asm["amdgcn"], shared)
    return nvidia(compiled.asm["cubin"], compiled.asm["ptx"], shared)


def amd(assembly: str, shared: int) -> Report:
    """AMD's assembly ends in a description of itself."""

    def stated(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        assert found, name
        return int(found[1])

    loads = re.findall(r"\b(?:global|buffer)_load_(\w+)", assembly)
    return Report(
        registers=stated("vgpr_count"),
        stack=stated("private_segment_fixed_size"),
        spills=stated("vgpr_spill_count") + stated("sgpr_spill_count"),
        shared=shared,
        wide_loads=sum(load.startswith(("dwordx4", "b128")) for load in loads),
        loads=len(loads),
        matrix=len(re.findall(r"\bv_(?:mfma|wmma)_", assembly)),
        warp_group=0,
        flushes=len(re.findall(r"\.amdhsa_float_denorm_mode_32 0\b", assembly)),
    )


def nvidia(cubin: bytes, ptx: str, shared: int) -> Report:
    """NVIDIA's code is disassembled; flushes are still visible in PTX."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        sass, usage = tool("-sass", file.name), tool("-res-usage", file.name)

    def used(name: str) -> int:
        found = re.search(rf"{name}:(\d+)", usage)
        assert found, name
        return int(found[1])

    def count(pattern: str) -> int:
        return len(re.findall(pattern, sass))

    return Report(
        registers=used("REG"),
        stack=used("STACK"),
        spills=count(r"\b(?:STL|LDL)\b"),
        shared=shared,
        wide_loads=count(r"\b(?:LDG|LDGSTS)\.\S*128\b"),
        loads=count(r"\b(?:LDG|LDGSTS)\."),
        matrix=count(r"\b(?:HMMA|HGMMA|UTCHMMA|QMMA|OMMA|UTC\w*MMA)\b"),
        warp_group=count(r"\b(?:HGMMA|UTC\w*MMA)\b"),
        flushes=len(re.findall(r"\.ftz\.f32", ptx)),
    )


def tool(option: str, file: str) -> str:
    """cuobjdump's answer about a file, from Triton's wheel or the machine."""
    bundled = TOOLS / "cuobjdump"
    program = bundled if bundled.exists() else shutil.which("cuobjdump")
    if program is None:
        raise RuntimeError("cuobjdump is neither in triton's wheel nor on the PATH")
    done = subprocess.run([program, option, file], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
