"""The parts of the sandbox one by one: frames, text, the data folder, and the list of calls."""

import errno
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

import pytest

from oss_lab.agents.sandbox.bubblewrap import read_pid
from oss_lab.agents.sandbox.call_text import CallText
from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.frames import LARGEST, BrokenProtocol, Frame, FrameReader, encode
from oss_lab.agents.sandbox.inside.filter import ARCHITECTURES, build_filter
from oss_lab.agents.sandbox.inside.syscalls import ALLOWED, IGNORED, RULED, read_numbers
from oss_lab.agents.sandbox.limits import Limits
from oss_lab.agents.sandbox.process import describe_exit
from oss_lab.agents.sandbox.view import find_view
from oss_lab.agents.sandbox.watch import find_excess

MIB = 1 << 20
TEXT = {"kind": "text", "id": "a", "stream": "stdout", "text": "hello"}


# Frames.


def test_frames_may_arrive_in_any_pieces() -> None:
    data = encode(TEXT) + encode({"kind": "done", "id": "a", "ok": True, "cut": 0})
    reader = FrameReader()
    frames = [frame for at in range(len(data)) for frame in reader.feed(data[at : at + 1])]
    assert frames == [
        Frame("text", "a", {"stream": "stdout", "text": "hello"}),
        Frame("done", "a", {"ok": True, "cut": 0}),
    ]
    assert FrameReader().feed(data) == frames


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack(">I", LARGEST + 1), "a frame of 65,537 bytes"),
        (b"\xff\xff\xff\xff", "a frame of 4,294,967,295 bytes"),
        (b"\0\0\0\2{]", "not JSON"),
        (b"\0\0\0\1\xff", "not JSON"),
        (b"\0\0\xff\xff" + b"[" * 0xFFFF, "not JSON"),
        (b"\0\0\xff\xff" + b"1" * 0xFFFF, "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (encode([TEXT]), "unknown kind"),  # pyright: ignore[reportArgumentType]
        (encode({**TEXT, "kind": "exec"}), "unknown kind"),
        (encode({**TEXT, "kind": ["text"]}), "unknown kind"),
        (encode({**TEXT, "text": 5}), "wrong fields"),
        (encode({**TEXT, "id": None}), "wrong fields"),
        (encode({**TEXT, "more": 1}), "wrong fields"),
        (encode({"kind": "text", "id": "a"}), "wrong fields"),
        (encode({"kind": "done", "id": "a", "ok": 1, "cut": 0}), "wrong fields"),
        (encode({"kind": "done", "id": "a", "ok": True, "cut": True}), "wrong fields"),
    ],
)
def test_what_is_not_a_frame_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(BrokenProtocol, match=problem):
        FrameReader().feed(encode(TEXT) + data)


# Text.


def test_pieces_are_joined_cut_and_cleaned() -> None:
    pieces = CallText(10)
    for text in ("abc", "def", "ghijkl"):
        pieces.add("stdout", text)
    pieces.add("nonsense", "\ud800")
    pieces.add("error", "why")
    assert pieces.merged() == (("stdout", "abcdefghij"), ("error", "why"))
    assert pieces.total_cut() == 2 + 6


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_end_of_raw_output_is_found(size: int) -> None:
    data = "a\0b\0id你".encode() + b"\0id\0 of the next call"
    pieces = CallText(100, "id")
    for at in range(0, len(data), size):
        if not pieces.raw_ended:
            pieces.add_raw(data[at : at + size])
    assert pieces.raw_ended
    assert "".join(text for _, text in pieces.merged()) == "a\0b\0id你"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "it exited with code 0"),
        (-9, "signal SIGKILL ended it"),
        (-99, "signal 99 ended it"),
    ],
)
def test_the_end_of_a_process_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


@pytest.mark.parametrize("report", [b"", b"{", b"{}", b"[]", b'{"child-pid": "x"}'])
def test_a_report_without_a_process_id(report: bytes) -> None:
    assert read_pid(report) is None
    assert read_pid(b'{"child-pid": 12}') == 12


# The data folder.


@pytest.fixture
def folder():
    found = DataFolder()
    yield found
    if found.path.exists():
        found.remove()


def nest(top: Path, depth: int) -> None:
    """Folders within folders, deeper than a path can name."""
    here = os.open(top, os.O_RDONLY)
    name = 200 * "d"
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("deepest", os.O_CREAT, dir_fd=here))
    os.close(here)


posix = pytest.mark.skipif(os.name != "posix", reason="links and depth are those of POSIX")


@posix
def test_a_folder_too_deep_to_measure_counts_as_an_excess(folder: DataFolder) -> None:
    nest(folder.path, 110)  # a path has at most 4096 bytes
    assert folder.find_excess(MIB, 10) == "/mnt/data held more than 10 files and folders"
    found = folder.find_excess(MIB, 1_000_000)
    assert found == "/mnt/data held a folder that is nested too deep or that cannot be read"
    folder.remove()
    assert not folder.path.exists()


@posix
def test_any_names_can_be_deleted(folder: DataFolder) -> None:
    for name in (b"1", b"2", b".deleted-1", b"\xff", "中".encode(), b"a\nb"):
        os.makedirs(os.path.join(os.fsencode(folder.path), name, name))
        with open(os.path.join(os.fsencode(folder.path), name, b"x" + name), "w") as file:
            file.write("x")
    (folder.path / "closed").mkdir(mode=0)
    assert len(folder.files()) == 5  # one name is not text
    folder.remove()
    assert not folder.path.exists()


@posix
def test_shrinking_deletes_the_newest_until_it_fits(folder: DataFolder) -> None:
    for name in ("first", "second", "third"):
        (folder.path / name).write_bytes(os.urandom(400_000))
        time.sleep(0.02)
    assert "more than 1.0 MiB" in (folder.find_excess(MIB, 10) or "")
    folder.shrink(MIB, 10)
    assert sorted(folder.files()) == ["first", "second"]
    folder.shrink(MIB, 1)
    assert sorted(folder.files()) == ["first"]


@posix
def test_links_are_neither_followed_nor_listed(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder.path / "link").symlink_to(tmp_path / "secret")
    (folder.path / "away").symlink_to(tmp_path)
    os.mkfifo(folder.path / "pipe")
    (folder.path / "real").mkdir()
    (folder.path / "real/file").write_text("mine")
    assert folder.files() == {"real/file": 4}
    assert folder.read("real/file") == b"mine"
    for name in ("link", "away/secret", "pipe", "real", "../secret", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="there is no file"):
            folder.read(name)
    folder.write("link", b"new")
    assert (tmp_path / "secret").read_text() == "secret"
    folder.remove()
    assert (tmp_path / "secret").read_text() == "secret"


@posix
def test_a_deleted_file_that_is_open_counts(folder: DataFolder) -> None:
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    proc = Path(f"/proc/{os.getpid()}")
    limits = Limits(disk=MIB, threads=10_000)
    assert find_excess(proc, folder, limits) is None
    with open(folder.path / "gone", "wb") as file:
        os.remove(file.name)
        file.write(os.urandom(3 * MIB))
        file.flush()
        assert "held 3.0 MiB" in (find_excess(proc, folder, limits) or "")
    assert "threads ran" in (find_excess(proc, folder, Limits(threads=1)) or "threads ran")


# The list of system calls. This runs the filter's program as the kernel does.


def decide(
    program: bytes, call: int, arguments: tuple[int, ...] = (), machine: str = "x86_64"
) -> int:
    """What the kernel does with a call: the program's return value."""
    steps = list(struct.iter_unpack("<HBBI", program))
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<iIQ6Q", call, ARCHITECTURES[machine], 0, *(a % 2**64 for a in padded))
    at = accumulator = 0
    while True:
        operation, jump, otherwise, value = steps[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return value
        else:
            test = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += jump if test else otherwise


ALLOW, KILL = 0x7FFF0000, 0x80000000


def refused(number: int) -> int:
    return 0x50000 | number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_call_of_the_table_is_decided(machine: str) -> None:
    program = build_filter(machine, 77)
    assert len(program) // 8 <= 4096  # the kernel's limit
    tables = [read_numbers(table, machine) for table in (ALLOWED, IGNORED, RULED)]
    numbers = [number for table in tables for number in table.values()]
    assert len(numbers) == len(set(numbers))
    allowed, ignored, ruled = tables
    for number in allowed.values():
        assert decide(program, number, machine=machine) == ALLOW
    for number in ignored.values():
        assert decide(program, number, machine=machine) == refused(0)
    for number in set(range(500)) - set(numbers):
        error = errno.ENOSYS if number >= 424 else errno.EPERM
        assert decide(program, number, machine=machine) == refused(error)
    other = "aarch64" if machine == "x86_64" else "x86_64"
    assert decide(program, allowed["read"], machine=other) == KILL
    assert decide(program, 0x40000000 | allowed["read"], machine=machine) == KILL

    def ask(name: str, *arguments: int) -> int:
        return decide(program, ruled[name], arguments, machine)

    thread = 0x3D0F00  # what pthread_create passes
    assert ask("clone", thread) == ALLOW
    for flags in (
        17,
        0,
        0x4000 | 0x100,
        *(thread | 1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)),
    ):
        assert ask("clone", flags) == refused(errno.EPERM)
    for name in ("kill", "tgkill"):
        assert ask(name, 77, 9) == ALLOW
        for pid in (76, 0, -1, -77, 1):
            assert ask(name, pid, 9) == refused(errno.EPERM)
    assert ask("prlimit64", 0, 7) == ask("prlimit64", 77, 7) == ALLOW
    assert ask("prlimit64", 76, 7) == refused(errno.EPERM)
    assert ask("prctl", 15) == ALLOW
    for option in (1, 4, 22, 38):  # signal at the parent's death, dumpable, seccomp, privileges
        assert ask("prctl", option) == refused(errno.EPERM)
    assert ask("sendto", 3, 4096, 5, 0, 0) == ALLOW
    assert ask("sendto", 3, 4096, 5, 0, 0x7FFF00000000) == refused(errno.EPERM)
    assert ask("sendto", 3, 4096, 5, 0, 0x1000) == refused(errno.EPERM)
    assert ask("socketpair", 1, 1 | 0x80000) == ALLOW
    assert ask("socketpair", 1, 2) == ask("socketpair", 2, 1) == refused(errno.EPERM)
    assert ask("ioctl", 0, 0x5401) == ALLOW
    assert ask("ioctl", 0, 0x5412) == refused(errno.ENOTTY)  # types into a terminal
    assert ask("fcntl", 0, 3) == ALLOW
    for command in (8, 10, 15, 1024, 1026, 1031):  # owner, signal, lease, notify, pipe size
        assert ask("fcntl", 0, command) == refused(errno.EPERM)
    assert ask("listxattr") == refused(errno.ENOTSUP)


# Calls that reach other processes, other programs, the network or new parts of the kernel.
DANGEROUS = """
    socket connect bind accept sendmsg execve execveat fork vfork clone3 mount umount2 unshare setns
    ptrace process_vm_readv process_vm_writev pidfd_open pidfd_send_signal tkill rt_sigqueueinfo
    sched_setaffinity sched_setscheduler sched_setattr setpriority ioprio_set get_robust_list
    move_pages migrate_pages bpf io_uring_setup perf_event_open keyctl userfaultfd memfd_create
    shmget msgget semget mq_open mknod mknodat chroot setuid capset personality seccomp setxattr
    chown fchownat name_to_handle_at open_by_handle_at splice vmsplice inotify_init1 fanotify_init
    timer_create mlock swapon reboot kcmp
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_dangerous_calls_are_in_no_table(name: str) -> None:
    for table in (ALLOWED, IGNORED, RULED):
        assert name not in read_numbers(table, "x86_64")


def test_the_numbers_are_those_of_this_machine() -> None:
    headers = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not headers.exists():
        pytest.skip("the kernel's headers are not installed")
    defined = dict(
        line.split()[1:3]
        for line in headers.read_text().splitlines()
        if line.startswith("#define __NR_")
    )
    for table in (ALLOWED, IGNORED, RULED):
        for name, number in read_numbers(table, "x86_64").items():
            assert int(defined.get(f"__NR_{name}", number)) == number, name


def test_the_view_has_no_private_folder() -> None:
    view = find_view()
    private = (Path.home(), Path("/etc"), Path("/proc"), Path("/tmp"), Path("/root"), Path("/home"))
    project = Path(__file__).parents[2]
    for path in map(Path, view.paths):
        assert path not in private
        assert path not in (project, *project.parents)
        assert not path.is_relative_to("/etc") or path.name == "ld.so.cache"
    assert not {"PATH", "PYTHONPATH"} & view.environment.keys()
    assert json.dumps(view.environment)
    assert socket.gethostname() not in view.environment.values()
