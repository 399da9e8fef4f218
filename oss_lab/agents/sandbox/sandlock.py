"""The first choice: sandlock, which needs neither root nor namespaces (Landlock and seccomp).

Landlock lets the process read the folders of the view and write to the data folder. The kernel
checks this for every file that is opened or listed. It does not hide that a file exists: `os.stat`
of a path that the code guesses succeeds. sandlock's own `chroot` would hide it, but there a second
program opens the files, and the code can change a path between its check and its use.
"""

import importlib.util
import sys
from typing import Any

from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.process import CannotStart, Process, describe_exit
from oss_lab.agents.sandbox.view import find_view

# What sandlock reports when the child could not be confined or the limits end it at once.
SILENT_EXIT = 254


def find_obstacle() -> str | None:
    """Why sandlock cannot work here, as part of a sentence; None if nothing is known."""
    if sys.platform != "linux":
        return "it needs Linux"
    if importlib.util.find_spec("sandlock") is None:
        return "the package is not installed (extra `sandbox`)"
    try:
        import sandlock
    except Exception as error:  # its library does not load
        return f"the package does not load ({type(error).__name__}: {error})"
    found, needed = sandlock.landlock_abi_version(), sandlock.min_landlock_abi()
    if found < needed:
        return f"it needs Landlock version {needed} (Linux 6.12), this kernel has {max(found, 0)}"
    return None


def start(data: DataFolder) -> Process:
    """Start the worker. Raises CannotStart."""
    from sandlock import Sandbox, StdioMode

    view = find_view()
    sandbox = Sandbox(
        fs_readable=[*view.paths, "/dev/urandom"],
        fs_writable=[str(data.path), "/dev/null"],
        cwd=str(data.path),
        clean_env=True,
        env={**view.environment, "HOME": str(data.path), "TMPDIR": str(data.path)},
        max_processes=1,
    )
    pipe = StdioMode.PIPED
    try:
        child = sandbox.popen(list(view.command), stdin=pipe, stdout=pipe, stderr=pipe)
    except Exception as error:
        raise CannotStart(f"it does not start ({error})") from error
    pid = child.pid
    if pid is None:
        raise CannotStart("it does not start (the process is gone)")
    pipes = (child.stdin, child.stdout, child.stderr)
    return Process(pipes, str(data.path), lambda: describe(child.wait()), pid=pid)


def describe(result: Any) -> str:
    """How the child ended, from sandlock's result."""
    if result.exit_code == SILENT_EXIT:
        return (
            "sandlock ended it without a message, as it does when limits are too small for Python"
        )
    if result.exit_code < 0:
        return describe_exit(-result.signal) if result.signal > 0 else "a signal ended it"
    return describe_exit(result.exit_code)
