"""What the worker gives up before it runs the model's code: the same in every sandbox.

It gives up every capability (a root user has them all), memory, file sizes and open files beyond
hard limits, and all system calls but those of `filter`, so it cannot start a process. It dies with
the process that started it. None of this can be undone.

The sandbox decides which files exist. This lock closes what a sandbox leaves open: Landlock covers
neither the modes of files nor the limits and cores of other processes, and bubblewrap alone permits
child processes, io_uring, perf and the keyring.
"""

import ctypes
import os
import platform
import struct

from oss_lab.agents.sandbox.inside.filter import ARCHITECTURES, build_filter

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER, SIGKILL = 2, 9
CAPABILITY_VERSION = 0x20080522  # the third, with 64 capabilities


def lock_down(memory: int, file_size: int, open_files: int) -> None:
    """Give up everything, for good. Sizes are in bytes. OSError says what the kernel refused."""
    import resource  # absent on Windows, where the other modules of this package are imported too

    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(
            f"the list of system calls covers {' and '.join(ARCHITECTURES)}, not {machine}"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "die with the parent")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    drop_capabilities(libc)
    install(libc, build_filter(machine, os.getpid()))


def drop_capabilities(libc: ctypes.CDLL) -> None:
    header = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION, 0))
    nothing = ctypes.create_string_buffer(struct.pack("<6I", *[0] * 6))
    check(libc.capset(header, nothing), "drop capabilities")


def install(libc: ctypes.CDLL, program: bytes) -> None:
    steps = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
    fprog = ctypes.create_string_buffer(head, len(head))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "install the filter")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
