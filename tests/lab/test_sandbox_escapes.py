"""Programs that try to leave the sandbox. All must fail in each sandbox that runs here.

Each program prints ESCAPED if it believes that it succeeded; where a look from outside is possible,
that decides as well. The same program is run without a sandbox and must succeed there, or at least
start: otherwise it may fail for another reason, and prove nothing.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oss_lab.agents.sandbox import Limits, PythonSandbox, worker
from oss_lab.agents.sandbox.choose import SANDBOXES
from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.view import find_view
from oss_lab.agents.sandbox.watch import sizes_of_deleted_files
from oss_lab.errors import LabError

pytestmark = pytest.mark.slow

MIB = 1 << 20
LIMITS = Limits(seconds=10, memory=160 * MIB, disk=4 * MIB, files=200, threads=20, output=2000)
# Why an attempt is not tried without a sandbox, if the condition does not hold.
ROOT_ONLY, OWN_PYTHON = "root alone could do this", "this Python belongs to another user"
POSSIBLE = {
    "": lambda: True,
    ROOT_ONLY: lambda: os.geteuid() == 0,
    OWN_PYTHON: lambda: os.stat(os.__file__).st_uid == os.geteuid(),
}

# Available to every program. A call counts as reached if the kernel did more than refuse it.
PRELUDE = """
import ctypes, errno, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
WIN = "".join(("ESC", "APED"))  # a traceback shows the program, and must not contain it
REFUSED = (errno.EPERM, errno.ENOSYS, errno.EACCES)
def reached(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[
        ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result != -1 or ctypes.get_errno() not in REFUSED:
        print(WIN, result, ctypes.get_errno())
"""


@dataclass(frozen=True)
class Attempt:
    """One program.

    Attributes:
        kind: the class of attempts.
        claim: what must not succeed.
        code: the program; `$name` is replaced by what Outside calls so.
        seen: a look from outside that finds out whether it succeeded.
        control: when it can be tried without a sandbox, a key of POSSIBLE.
    """

    kind: str
    claim: str
    code: str
    seen: Callable[["Outside"], bool] = field(default=lambda outside: False)
    control: str = ""


class Outside:
    """Things of the host that a program may try to reach."""

    def __init__(self, folder: Path) -> None:
        self.token = os.urandom(12).hex()
        self.folder = folder
        self.secret, self.victim_file = folder / "secret.txt", folder / "victim.txt"
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.stream, self.datagram, self.abstract = (
            socket.socket(socket.AF_UNIX, kind)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
        self.tcp.bind(("127.0.0.1", 0))
        self.udp.bind(("127.0.0.1", 0))
        self.stream.bind(str(folder / "stream"))
        self.datagram.bind(str(folder / "datagram"))
        self.abstract.bind(f"\0{self.marker}")
        for listener in (self.tcp, self.stream, self.abstract):
            listener.listen()
        for each in (self.tcp, self.udp, self.stream, self.datagram, self.abstract):
            each.setblocking(False)
        self.victim: subprocess.Popen[bytes] | None = None
        self.renew()

    def renew(self) -> None:
        """What a program may have destroyed, again."""
        self.secret.write_text(f"secret {self.token}")
        self.victim_file.write_text("here")
        self.victim_file.chmod(0o600)
        for path in self.folder.glob("made*"):
            path.unlink()
        if self.victim is None or self.victim.poll() is not None:
            self.victim = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"],
                env={"SECRET": self.token},
                start_new_session=True,
            )

    def fill(self, code: str) -> str:
        assert self.victim is not None
        names = {
            "token": self.token,
            "secret": self.secret,
            "victim_file": self.victim_file,
            "folder": self.folder,
            "home": Path.home(),
            "shown": [
                Path(path).relative_to(Path.home()).parts[0]
                for path in find_view().paths
                if Path(path).is_relative_to(Path.home())
            ],
            "project": Path(__file__).parents[2],
            "port": self.tcp.getsockname()[1],
            "udp_port": self.udp.getsockname()[1],
            "victim": self.victim.pid,
            "parent": os.getpid(),
            "marker": self.marker,
        }
        for name in sorted(names, key=len, reverse=True):
            code = code.replace(f"${name}", str(names[name]))
        return code

    @property
    def marker(self) -> str:
        return f"orphan-{self.token[:8]}"

    def close(self) -> None:
        for each in (self.tcp, self.udp, self.stream, self.datagram, self.abstract):
            each.close()
        if self.victim is not None:
            self.victim.kill()
            self.victim.wait()


def arrived(name: str) -> Callable[[Outside], bool]:
    """Whether somebody connected or wrote to one of the sockets."""

    def look(outside: Outside) -> bool:
        listener = getattr(outside, name)
        with suppress(BlockingIOError):
            if name in ("udp", "datagram"):
                return bool(listener.recv(100))
            listener.accept()[0].close()
            return True
        return False

    return look


def victim_is_dead(outside: Outside) -> bool:
    assert outside.victim is not None
    with suppress(subprocess.TimeoutExpired):
        outside.victim.wait(0.5)
    return outside.victim.poll() is not None


def victim_has_a_limit(outside: Outside) -> bool:
    assert outside.victim is not None
    lines = Path(f"/proc/{outside.victim.pid}/limits").read_text().splitlines()
    return any(line.split()[:4] == ["Max", "open", "files", "7"] for line in lines)


def made(outside: Outside) -> bool:
    return any(outside.folder.glob("made*"))


def orphaned(outside: Outside) -> bool:
    """A process with the marker in its command line; it is ended."""
    found = False
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if outside.marker.encode() in path.read_bytes():
                found = True
                os.kill(int(path.parent.name), signal.SIGKILL)
    return found


NETWORK = [
    Attempt(
        "network",
        "connect to a TCP port of this machine",
        "s = socket.socket(); s.settimeout(2); s.connect(('127.0.0.1', $port)); print(WIN)",
        arrived("tcp"),
    ),
    Attempt(
        "network",
        "send a UDP datagram",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'hi', ('127.0.0.1', $udp_port))",
        arrived("udp"),
    ),
    Attempt(
        "network",
        "listen on a TCP port",
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(WIN)",
    ),
    Attempt(
        "network",
        "connect to a Unix socket with a path",
        "socket.socket(socket.AF_UNIX).connect('$folder/stream'); print(WIN)",
        arrived("stream"),
    ),
    Attempt(
        "network",
        "connect to an abstract Unix socket",
        "socket.socket(socket.AF_UNIX).connect('\\0$marker'); print(WIN)",
        arrived("abstract"),
    ),
    Attempt(
        "network",
        "write to a Unix socket from one of a pair, which needs no `socket` call",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "a.sendto(b'hi', '$folder/datagram')",
        arrived("datagram"),
    ),
    Attempt("network", "open a netlink socket", "reached(41, 16, 3, 0)"),
    Attempt("network", "open a raw packet socket", "reached(41, 17, 3, 768)", control=ROOT_ONLY),
]

FILES = [
    Attempt("files", "read /etc/passwd", "print(WIN, open('/etc/passwd').read())"),
    Attempt("files", "read a file outside", "print(open('$secret').read())"),
    Attempt(
        "files",
        "list the home folder",  # beyond what leads to Python, where it is installed there
        "print(*[WIN for name in os.listdir('$home') if name not in $shown])",
    ),
    Attempt("files", "list the processes of this machine", "print(WIN, os.listdir('/proc'))"),
    Attempt(
        "files",
        "read the project",
        "print(WIN, open('$project/pyproject.toml').read()[:20])",
    ),
    Attempt(
        "files",
        "read a file outside through its relative path",
        "print(open('/mnt/data/../../../../../../..$secret').read())",
    ),
    Attempt(
        "files",
        "read through a symbolic link",
        "os.symlink('$secret', 'link'); print(open('link').read())",
    ),
    Attempt(
        "files",
        "read through a hard link",
        "os.link('$victim_file', '/mnt/data/hard'); print(WIN, open('hard').read())",
    ),
    Attempt("files", "write a file outside", "open('$folder/made.txt', 'w').write('x')", made),
    Attempt(
        "files",
        "delete a file outside",
        "os.remove('$victim_file')",
        lambda outside: not outside.victim_file.exists(),
    ),
    Attempt(
        "files",
        "overwrite a file outside",
        "os.truncate('$victim_file', 0)",
        lambda outside: outside.victim_file.read_text() != "here",
    ),
    Attempt(
        "files",
        "change the mode of a file outside",
        "os.chmod('$victim_file', 0o777)",
        lambda outside: stat.S_IMODE(outside.victim_file.stat().st_mode) != 0o600,
    ),
    Attempt(
        "files",
        "change the mode of a file that can be read, through its descriptor",
        "before = os.stat(os.__file__).st_mode\n"
        "with open(os.__file__) as file:\n"
        "    os.fchmod(file.fileno(), before ^ 0o1)\n"
        "    print(WIN if os.stat(os.__file__).st_mode != before else '')\n"
        "    os.fchmod(file.fileno(), before)",
        control=OWN_PYTHON,
    ),
    Attempt(
        "files",
        "write to the interpreter's own files",
        "open(os.__file__, 'a').close(); print(WIN)",
        control=OWN_PYTHON,
    ),
    Attempt(
        "files",
        "read another process's environment",
        "print(open('/proc/$victim/environ').read())",
    ),
    Attempt(
        "files",
        "open a file by its handle, without a path",
        "reached(304, -100, ctypes.create_string_buffer(64), 0)",
        control=ROOT_ONLY,
    ),
]

PROCESSES = [
    Attempt(
        "processes",
        "fork",
        "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nprint(WIN, os.waitpid(pid, 0))",
    ),
    Attempt(
        "processes",
        "fork bomb, of at most ten",
        "count = 0\n"
        "for _ in range(10):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(0)\n"
        "    count += 1\n"
        "    print(WIN, count, os.waitpid(pid, 0))",
    ),
    Attempt(
        "processes",
        "fork with the bare system call",
        "pid = libc.syscall(57)\nif pid == 0:\n    os._exit(0)\nprint(WIN if pid > 0 else '')",
    ),
    Attempt(
        "processes",
        "clone with the bare system call",
        "pid = libc.syscall(56, 17, 0, 0, 0, 0)\n"
        "if pid == 0:\n"
        "    os._exit(0)\n"
        "print(WIN if pid > 0 else '')",
    ),
    Attempt(
        "processes",
        "run a program",
        "import subprocess\nprint(subprocess.run(['/bin/echo', WIN], capture_output=True))",
    ),
    Attempt(
        "processes",
        "start a child that outlives the call",
        "import subprocess\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)', '$marker'],\n"
        "                 start_new_session=True)\n"
        "time.sleep(0.3)",
        orphaned,
    ),
    Attempt(
        "processes",
        "become a shell",
        "os.execv('/bin/sh', ['sh', '-c', f'echo {WIN} >&2'])",
    ),
    Attempt("processes", "attach to a process", "reached(101, 0x4206, $victim, 0, 0)"),
    Attempt(
        "processes",
        "read the memory of a process",
        "buffer = ctypes.create_string_buffer(8)\n"
        "import struct\n"
        "maps = open('/proc/$victim/maps').readline().split('-')[0]\n"
        "here = ctypes.create_string_buffer(struct.pack('PL', ctypes.addressof(buffer), 8))\n"
        "there = ctypes.create_string_buffer(struct.pack('PL', int(maps, 16), 8))\n"
        "print(WIN if libc.process_vm_readv($victim, here, 1, there, 1, 0) > 0 else '')",
    ),
    Attempt(
        "processes",
        "start 400 threads",
        "import threading\n"
        "threading.stack_size(64 * 1024)\n"
        "gate = threading.Event()\n"
        "for _ in range(400):\n"
        "    threading.Thread(target=gate.wait, daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "print(WIN, threading.active_count())\n"
        "gate.set()",
    ),
]

MEMORY = [
    Attempt("memory", "allocate it at once", "x = bytearray(170 << 20); print(WIN)"),
    Attempt(
        "memory",
        "allocate it in small steps",
        "kept = []\nfor _ in range(170):\n    kept.append(b'x' * (1 << 20))\nprint(WIN)",
    ),
    Attempt(
        "memory",
        "map it past Python",
        "import mmap\nx = mmap.mmap(-1, 170 << 20)\nprint(WIN)",
    ),
    Attempt(
        "memory",
        "keep it in a file without a name in memory",
        "f = os.memfd_create('x')\nos.write(f, b'x' * 1000)\nprint(WIN)",
    ),
    Attempt(
        "memory",
        "keep it in files of folders in memory",
        "for folder in ('/dev/shm', '/run', '/tmp', '/dev', '/', '/mnt', '/home'):\n"
        "    try:\n"
        "        name = f'{folder}/oss-lab-escape'\n"
        "        open(name, 'w').write('x')\n"
        "        print(WIN, name)\n"
        "        os.remove(name)\n"
        "    except OSError:\n"
        "        pass",
    ),
    Attempt(
        "memory",
        "raise its own limit",
        "import resource\n"
        "most = resource.RLIM_INFINITY\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most)); print(WIN)",
    ),
    Attempt("memory", "share System V memory", "reached(29, 0, 1 << 20, 0o1600)"),
    Attempt(
        "memory",
        "open hundreds of pipes",
        "kept = [os.pipe() for _ in range(200)]; print(WIN)",
    ),
]

LOOP = "print('started', flush=True)\n"
TIME = [
    Attempt("time", "loop forever", LOOP + "while True: pass"),
    Attempt("time", "sleep for an hour", LOOP + "time.sleep(3600)"),
    Attempt(
        "time",
        "ignore every signal",
        "for number in range(1, 65):\n"
        "    try:\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n"
        "        pass\n" + LOOP + "while True: pass",
    ),
    Attempt(
        "time",
        "catch everything and continue",
        LOOP + "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ),
    Attempt(
        "time",
        "stay in C code that does not return to Python",
        LOOP + "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    ),
    Attempt(
        "time",
        "wait for a lock that is never free",
        LOOP + "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    ),
]

SIGNALS = [
    Attempt("signals", "kill a process", "os.kill($victim, signal.SIGKILL)", victim_is_dead),
    Attempt("signals", "reach the parent", "os.kill($parent, 0); print(WIN)"),
    Attempt("signals", "reach whoever is the parent", "os.kill(os.getppid(), 0); print(WIN)"),
    Attempt("signals", "reach every process", "os.kill(-1, 0); print(WIN)"),
    Attempt(
        "signals", "kill a process group", "os.killpg($victim, signal.SIGKILL)", victim_is_dead
    ),
    Attempt(
        "signals",
        "kill through a process handle",
        "signal.pidfd_send_signal(os.pidfd_open($victim), signal.SIGKILL)",
        victim_is_dead,
    ),
    Attempt(
        "signals",
        "let the kernel send one when a pipe is ready",
        "import fcntl\n"
        "r, w = socket.socketpair()\n"
        "fcntl.fcntl(r, fcntl.F_SETSIG, signal.SIGKILL)\n"
        "fcntl.fcntl(r, fcntl.F_SETOWN, $victim)\n"
        "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\n"
        "w.send(b'x')\n"
        "time.sleep(0.1)",
        victim_is_dead,
    ),
    Attempt(
        "signals",
        "queue one with data",
        "info = ctypes.create_string_buffer(128)\n"
        "ctypes.memmove(info, (ctypes.c_int * 3)(9, 0, -1), 12)\n"
        "libc.syscall(129, $victim, 9, info)",
        victim_is_dead,
    ),
    Attempt(
        "signals",
        "change the limits of a process",
        "import resource\nresource.prlimit($victim, resource.RLIMIT_NOFILE, (7, 7))",
        victim_has_a_limit,
    ),
    Attempt(
        "signals",
        "slow a process down",
        "os.setpriority(os.PRIO_PROCESS, $victim, 19); print(WIN)",
    ),
    Attempt(
        "signals",
        "pin a process to a core",
        "os.sched_setaffinity($victim, {0}); print(WIN)",
    ),
]

PRIVATE_MOUNTS = "reached(272, 0x20000)\nlibc.mount(b'x', b'/', b'none', 0x44000, None)\n"
KERNEL = [
    Attempt("kernel", "unshare a user namespace", "reached(272, 0x10000000)"),
    Attempt(
        "kernel",
        "mount a file system",
        PRIVATE_MOUNTS + "reached(165, b'x', b'/mnt', b'tmpfs', 0, None)",
        control=ROOT_ONLY,
    ),
    Attempt("kernel", "open a new mount tree", "reached(430, b'tmpfs', 0)", control=ROOT_ONLY),
    Attempt("kernel", "unmount", PRIVATE_MOUNTS + "reached(166, b'/none', 0)", control=ROOT_ONLY),
    Attempt("kernel", "change the root folder", "os.chroot('.'); print(WIN)", control=ROOT_ONLY),
    Attempt("kernel", "join another namespace", "reached(308, 0, 0)"),
    Attempt(
        "kernel",
        "make a disk device",
        "os.mknod('disk', 0o060600, os.makedev(7, 0)); print(WIN)",
        control=ROOT_ONLY,
    ),
    Attempt(
        "kernel",
        "write to /proc/sys",
        "open('/proc/sys/kernel/printk', 'r+').close(); print(WIN)",
        control=ROOT_ONLY,
    ),
    Attempt(
        "kernel",
        "write to its own memory through /proc",
        "open('/proc/self/mem', 'r+b', 0).close(); print(WIN)",
    ),
    Attempt("kernel", "set up io_uring", "reached(425, 1, ctypes.create_string_buffer(120))"),
    Attempt("kernel", "load a BPF program", "reached(321, 5, None, 0)", control=ROOT_ONLY),
    Attempt("kernel", "use the keyring", "reached(250, 0, -4, 0)"),
    Attempt("kernel", "add a key", "reached(248, b'user', b'x', b'y', 1, -2)"),
    Attempt("kernel", "count with perf", "reached(298, None, 0, -1, -1, 0)"),
    Attempt("kernel", "handle page faults", "reached(323, 1)"),
    Attempt("kernel", "switch off address randomization", "reached(135, 0x0040000)"),
    Attempt("kernel", "rename the machine (too long)", "reached(170, None, 99)", control=ROOT_ONLY),
    Attempt(
        "kernel",
        "restart the machine (with wrong magic)",
        "reached(169, 1, 2, 3)",
        control=ROOT_ONLY,
    ),
    Attempt("kernel", "become root", "os.setresuid(0, 0, 0); print(WIN)", control=ROOT_ONLY),
    Attempt("kernel", "replace the filter", "reached(317, 2, 0, None)"),
    Attempt(
        "kernel",
        "skip the filter with a 32-bit call",
        "import mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, getpid; int 0x80; ret\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "print(WIN if call() == os.getpid() else '')",
    ),
]

EVERY_PIPE = (
    "def every_pipe(data):\n"
    "    for number in range(3, 40):\n"
    "        try:\n"
    "            os.write(number, data)\n"
    "        except OSError:\n"
    "            pass\n"
)
FORGED = (
    "import gc, json, struct\n"
    "channel = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n"
    "def frame(message):\n"
    "    data = json.dumps(message).encode()\n"
    "    return struct.pack('>I', len(data)) + data\n"
)
CUT, FLOODED, BROKEN, GONE = "output cut", "wrote more than", "pipe for answers", "process ended"
OUTPUT = [  # with what the model reads then, which shows that the attempt took effect
    ("print without end", LOOP + "while True: print('x' * 1000)", CUT),
    ("write to stderr without end", LOOP + "while True: sys.stderr.write('x' * 99)", CUT),
    ("flood descriptor 1", LOOP + "while True: os.write(1, b'x' * 65536)", FLOODED),
    ("flood descriptor 2", LOOP + "while True: os.write(2, b'x' * 65536)", FLOODED),
    ("show a huge value", LOOP + "'x' * (20 << 20)", CUT),
    ("raise a huge error", LOOP + "raise ValueError('x' * (20 << 20))", "…xxx"),
    ("write frames that are not JSON", EVERY_PIPE + "every_pipe(b'\\0\\0\\0\\2{]')", BROKEN),
    ("announce a frame of 4 GiB", EVERY_PIPE + "every_pipe(b'\\xff\\xff\\xff\\xff')", BROKEN),
    (
        "write JSON too deep for a parser",
        EVERY_PIPE + "every_pipe(b'\\0\\0\\x80\\0' + b'[' * 32768)",
        BROKEN,
    ),
    (
        "write a frame with fields of wrong types",
        FORGED
        + "os.write(channel.answers, frame({'kind': 'done', 'id': channel.cell, 'cut': ''}))",
        BROKEN,
    ),
    ("flood the pipe for answers", EVERY_PIPE + "while True: every_pipe(b'\\0' * 4096)", BROKEN),
    (
        "answer late and twice",
        FORGED + "done = {'kind': 'done', 'id': channel.cell, 'ok': True, 'cut': 12345}\n"
        "os.write(channel.answers, frame(done) * 3)",
        "12,345 more are not",
    ),
    (
        "pretend to start again",
        FORGED + "os.write(channel.answers, frame({'kind': 'ready', 'id': channel.cell}))",
        "'ready' frame",
    ),
    ("close the pipe for answers", "os.closerange(3, 100)", GONE),
    ("close every descriptor", "os.closerange(0, 100)", GONE),
    ("end the process", "os._exit(3)", "exited with code 3"),
    ("crash the process", "ctypes.string_at(0)", "SIGSEGV"),
]

FILL = "print('started', flush=True)\ntotal = 0\n"
DISK = [
    (
        "write many files",
        FILL + "while True:\n"
        "    with open(f'f{total}', 'wb') as file:\n"
        "        file.write(b'x' * 100_000)\n"
        "    total += 1",
    ),
    (
        "write one large file",
        FILL + "file = open('big', 'wb')\nwhile True: file.write(b'x' * 100_000)",
    ),
    (
        "fill deleted files that stay open",
        FILL + "kept = []\n"
        "while True:\n"
        "    file = open('gone', 'wb', 0)\n"
        "    os.remove('gone')\n"
        "    kept.append(file)\n"
        "    file.write(b'x' * 1_000_000)",
    ),
    (
        "make folders within folders",
        FILL + "while True:\n    os.mkdir('d')\n    os.chdir('d')",
    ),
    (
        "make links without end",
        FILL + "while True:\n    os.symlink('/', f'l{total}')\n    total += 1",
    ),
    (
        "allocate without writing",
        FILL + "f = os.open('a', os.O_RDWR | os.O_CREAT)\nos.posix_fallocate(f, 0, 20 << 20)",
    ),
]

ATTEMPTS = [*NETWORK, *FILES, *PROCESSES, *MEMORY, *SIGNALS, *KERNEL]


def name_of(value: object) -> str:
    return f"{value.kind}: {value.claim}" if isinstance(value, Attempt) else ""


CLEAR = """
import os
for each in os.listdir("."):
    os.remove(each)
for each in [name for name in globals() if not name.startswith("__")]:
    del globals()[each]
"""


def skip_other_machines(code: str) -> None:
    if ("reached(" in code or "syscall(" in code or "int 0x80" in code) and (
        os.uname().machine != "x86_64"
    ):
        pytest.skip("the program uses the system call numbers of x86_64")


@pytest.fixture(scope="module", autouse=True)
def linux() -> None:
    if sys.platform != "linux":
        pytest.skip("the sandboxes need Linux")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    found = Outside(tmp_path_factory.mktemp("outside"))
    yield found
    found.close()


@pytest.fixture(scope="module", params=list(SANDBOXES))
def kind(request: pytest.FixtureRequest) -> str:
    """A sandbox that runs here."""
    try:
        PythonSandbox(use=request.param).close()
    except LabError as error:
        pytest.skip(f"{request.param} does not run here: {error}")
    return request.param


@pytest.fixture(scope="module")
def confined(kind: str) -> Iterator[PythonSandbox]:
    with PythonSandbox(use=kind, limits=LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def unconfined() -> Iterator[PythonSandbox]:
    with PythonSandbox(use="unsafe: none", unsafe=True, limits=LIMITS) as sandbox:
        yield sandbox


def escaped(attempt: Attempt, sandbox: PythonSandbox, outside: Outside) -> tuple[bool, str]:
    """Whether the attempt succeeded, from inside or outside, and what the model reads."""
    skip_other_machines(attempt.code)
    outside.renew()
    sandbox.run(CLEAR)
    text = sandbox.run(PRELUDE + outside.fill(attempt.code)).text
    seen = attempt.seen(outside)
    return seen or "ESCAPED" in text or outside.token in text, text


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=name_of)
def test_an_attempt_fails(attempt: Attempt, confined: PythonSandbox, outside: Outside) -> None:
    success, text = escaped(attempt, confined, outside)
    assert not success, f"{attempt.claim} succeeded in {confined.sandbox}: {text}"
    assert attempt.kind == "memory" or "MemoryError" not in text  # it failed for its own reason
    assert confined.run("1 + 1").value == "2"


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=name_of)
def test_it_succeeds_without_a_sandbox(
    attempt: Attempt, unconfined: PythonSandbox, outside: Outside
) -> None:
    if not POSSIBLE[attempt.control]():
        pytest.skip(attempt.control)
    if attempt.kind in ("memory", "kernel"):
        unconfined.run("import os; os._exit(0)")  # the attempt before may have changed the process
    success, text = escaped(attempt, unconfined, outside)
    assert success, f"{attempt.claim} proves nothing: it fails without a sandbox, too: {text}"


@pytest.fixture(scope="module")
def hurried(kind: str) -> Iterator[PythonSandbox]:
    with PythonSandbox(use=kind, limits=Limits(seconds=0.6)) as sandbox:
        yield sandbox


@pytest.mark.parametrize("attempt", TIME, ids=name_of)
def test_time_is_up(attempt: Attempt, hurried: PythonSandbox) -> None:
    hurried.run("kept = 1")
    process = process_of(hurried)
    result = hurried.run(PRELUDE + attempt.code)
    assert result.stdout == "started\n"
    assert result.ended == "timed out after 0.6 seconds and was killed"
    assert result.seconds < 2
    assert not process.exists()
    assert "NameError" in hurried.run("kept").error


@pytest.mark.parametrize("attempt", TIME, ids=name_of)
def test_it_would_run_on(attempt: Attempt) -> None:
    command = [sys.executable, "-c", PRELUDE + attempt.code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"started\n"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.6)
        finally:
            child.kill()


def process_of(sandbox: PythonSandbox) -> Path:
    """/proc/PID of the running worker."""
    worker = sandbox._state.worker
    assert worker is not None
    assert worker.process.proc is not None
    return worker.process.proc


def test_no_thread_runs_between_calls(confined: PythonSandbox) -> None:
    confined.run(CLEAR)
    confined.run("import threading, time\ncount = 0\ngo = True")
    assert (
        confined.run(
            "def spin():\n    global count\n    while go: count += 1\n"
            "threading.Thread(target=spin, daemon=True).start(); time.sleep(0.1)"
        ).error
        == ""
    )
    stat_file = process_of(confined) / "stat"
    until = time.monotonic() + 2
    while (before := stat_file.read_text().rpartition(")")[2].split())[0] != "T":
        assert time.monotonic() < until
    time.sleep(0.5)
    after = stat_file.read_text().rpartition(")")[2].split()
    assert before[0] == after[0] == "T"  # stopped
    assert before[11:13] == after[11:13]  # processor time
    assert int(confined.run("go = False; count").value) > 0


@pytest.fixture(scope="module")
def noisy(kind: str) -> Iterator[PythonSandbox]:
    limits = Limits(seconds=1, memory=256 * MIB, output=2000)
    with pytest.MonkeyPatch.context() as patch, PythonSandbox(use=kind, limits=limits) as sandbox:
        patch.setattr(worker, "FLOOD", 8 * MIB)
        yield sandbox


@pytest.mark.parametrize(("claim", "code", "reads"), OUTPUT, ids=[each[0] for each in OUTPUT])
def test_output_is_bounded_and_the_parent_survives(
    noisy: PythonSandbox, claim: str, code: str, reads: str
) -> None:
    result = noisy.run(PRELUDE + code)
    assert reads in result.text
    assert len(result.text) < 2 * 2000 + 300
    assert noisy.run("print('next')\n40 + 2").text == "next\n42"


@pytest.fixture
def filling(kind: str) -> Iterator[PythonSandbox]:
    limits = Limits(seconds=4, memory=256 * MIB, disk=4 * MIB, files=200)
    with PythonSandbox(use=kind, limits=limits) as sandbox:
        yield sandbox


@pytest.mark.parametrize(("claim", "code"), DISK, ids=[each[0] for each in DISK])
def test_disk_is_bounded(filling: PythonSandbox, claim: str, code: str) -> None:
    filling.run("open('kept', 'w').write('x')")
    result = filling.run(PRELUDE + code)
    assert result.stdout.startswith("started")
    assert not result.ok
    assert "timed out" not in result.text
    assert filling.run("open('kept').read()").value == "'x'"
    assert filling._state.data.find_excess(4 * MIB, 200) is None


@pytest.mark.parametrize(("claim", "code"), DISK, ids=[each[0] for each in DISK])
def test_it_would_fill_the_disk(claim: str, code: str) -> None:
    folder = DataFolder()
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], cwd=folder.path, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        until = time.monotonic() + 5
        excess = None
        while excess is None and time.monotonic() < until:
            held = sum(sizes_of_deleted_files(Path(f"/proc/{child.pid}")))
            excess = folder.find_excess(4 * MIB, 200, held)
        child.kill()
    folder.remove()
    assert excess is not None
