"""A seccomp program that allows the system calls one Python process needs, and no other.

The list is of what is allowed, so a call that a later kernel adds is refused too. A refused call
fails with EPERM; a recent one with ENOSYS, since libraries then use an older call instead. Four
calls are allowed for this process alone: `kill`, `tgkill` and `prlimit64` name it, and `clone` may
only start a thread of it. Paths are not checked here: that is the sandbox's work.
"""

import struct

from oss_lab.agents.sandbox.inside.syscalls import ALLOWED, IGNORED, RULED, read_numbers

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # numbers from here on are the x32 calls of x86_64
FIRST_RECENT = 424  # calls from here on have the same number on every machine

# Operations of classic BPF: load a word, jump if equal, at least, or any bit set; return.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOTTY, ENOSYS, ENOTSUP = 1, 25, 38, 95
NUMBER, ARCHITECTURE = 0, 4  # offsets into struct seccomp_data

CLONE_THREAD = 0x00010000
NEW_NAMESPACES = 0x7E020080
TERMINAL_SIZE_AND_FLAGS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
NAME_OF_THREAD = (15, 16)  # PR_SET_NAME, PR_GET_NAME
# Duplicate, descriptor flags, status flags, record locks, pipe size and seals.
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1034)
AF_UNIX, SOCK_STREAM = 1, 1

Program = list[tuple[int, int, int, int]]


def build_filter(machine: str, pid: int) -> bytes:
    """The program as an array of struct sock_filter, for the process `pid`."""
    program: Program = [
        (LOAD, 0, 0, ARCHITECTURE),
        *only_if((EQUAL, ARCHITECTURES[machine]), otherwise=KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    for number in read_numbers(ALLOWED, machine).values():
        program += on_call(number, [(RETURN, 0, 0, ALLOW)])
    for number in read_numbers(IGNORED, machine).values():
        program += on_call(number, [(RETURN, 0, 0, ERRNO)])  # error 0 is success
    for name, number in read_numbers(RULED, machine).items():
        program += on_call(number, rule(name, pid))
    program += [
        (AT_LEAST, 0, 1, FIRST_RECENT),
        (RETURN, 0, 0, ERRNO | ENOSYS),
        (RETURN, 0, 0, ERRNO | EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in program)


def rule(name: str, pid: int) -> Program:
    """What decides about one call from its arguments; the last step returns."""
    return {
        "ioctl": lambda: argument_in(1, TERMINAL_SIZE_AND_FLAGS, otherwise=ENOTTY),
        "fcntl": lambda: argument_in(1, FCNTL),
        "prctl": lambda: argument_in(0, NAME_OF_THREAD),
        "kill": lambda: argument_in(0, (pid,)),
        "tgkill": lambda: argument_in(0, (pid,)),
        "prlimit64": lambda: argument_in(0, (0, pid)),
        "clone": thread_only,
        "socketpair": stream_pair,
        "sendto": without_address,
        "listxattr": refuse_politely,
        "llistxattr": refuse_politely,
        "flistxattr": refuse_politely,
    }[name]()


def refuse_politely() -> Program:
    """Not supported, which `shutil.copy2` accepts."""
    return [(RETURN, 0, 0, ERRNO | ENOTSUP)]


def thread_only() -> Program:
    return [
        (LOAD, 0, 0, offset(0)),
        (ANY_BIT, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, ERRNO | EPERM),
        *only_if((ANY_BIT, CLONE_THREAD)),
        (RETURN, 0, 0, ALLOW),
    ]


def stream_pair() -> Program:
    """asyncio wakes its loop through such a pair; a datagram pair could write to other sockets."""
    return [
        (LOAD, 0, 0, offset(0)),
        *only_if((EQUAL, AF_UNIX)),
        (LOAD, 0, 0, offset(1)),
        (0x54, 0, 0, 0xF),  # the type without its flags
        *only_if((EQUAL, SOCK_STREAM)),
        (RETURN, 0, 0, ALLOW),
    ]


def without_address() -> Program:
    return [
        (LOAD, 0, 0, offset(4)),
        *only_if((EQUAL, 0)),
        (LOAD, 0, 0, offset(4) + 4),
        *only_if((EQUAL, 0)),
        (RETURN, 0, 0, ALLOW),
    ]


def argument_in(index: int, values: tuple[int, ...], otherwise: int = EPERM) -> Program:
    steps: Program = [(LOAD, 0, 0, offset(index))]
    for value in values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*steps, (RETURN, 0, 0, ERRNO | otherwise)]


def only_if(test: tuple[int, int], otherwise: int = ERRNO | EPERM) -> Program:
    operation, value = test
    return [(operation, 1, 0, value), (RETURN, 0, 0, otherwise)]


def on_call(number: int, steps: Program) -> Program:
    """Steps for one call. They must return, since they may overwrite the loaded number."""
    return [(EQUAL, 0, len(steps), number), *steps]


def offset(argument: int) -> int:
    """Where the low 32 bits of an argument are; the kernel ignores the rest of these arguments."""
    return 16 + 8 * argument
