"""The second choice: bubblewrap, which gives the process private namespaces.

The process sees a file system with the folders of the view, all read-only, and /mnt/data. Users,
processes, network (without any device) and host name are private too. It needs user namespaces,
which some systems forbid, as Ubuntu does unless AppArmor has a rule for `bwrap`.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress

from oss_lab.agents.sandbox.data_folder import NAME, DataFolder
from oss_lab.agents.sandbox.process import CannotStart, Process, wait_for
from oss_lab.agents.sandbox.view import View, find_view

DEVICES = ("/dev/null", "/dev/urandom")
USER = "1000"  # inside; outside it is the caller


def find_obstacle() -> str | None:
    """Why bubblewrap cannot work here, as part of a sentence; None if nothing is known."""
    if sys.platform != "linux":
        return "it needs Linux"
    if shutil.which("bwrap") is None:
        return "there is no `bwrap` command (package bubblewrap)"
    return None


def start(data: DataFolder) -> Process:
    """Start the worker. Raises CannotStart."""
    info, writer = os.pipe()
    view = find_view()
    try:
        child = subprocess.Popen(
            build_command(view, data, writer),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(writer,),
        )
    except OSError as error:
        os.close(info)
        raise CannotStart(f"`bwrap` does not start ({error})") from error
    finally:
        os.close(writer)
    with os.fdopen(info, "rb") as report:
        pid = read_pid(report.read())
    pipes = (child.stdin, child.stdout, child.stderr)
    if pid is None:
        complaint = child.communicate()[1].decode(errors="replace").strip()
        raise CannotStart(complaint or "`bwrap` ends without a message")
    return Process(pipes, NAME, wait_for(child), pid=pid, kill=child.kill)


def build_command(view: View, data: DataFolder, info: int) -> list[str]:
    """The whole command line. What is not named in it does not exist inside."""
    command = ["bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    command += ["--as-pid-1", "--info-fd", str(info), "--cap-drop", "ALL"]
    command += ["--uid", USER, "--gid", USER, "--hostname", "sandbox", "--clearenv"]
    for name, value in {**view.environment, "TMPDIR": NAME}.items():
        command += ["--setenv", name, value]
    for path in view.paths:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    # Everything else is memory that the process could fill, so it becomes read-only.
    command += ["--bind", str(data.path), NAME, "--remount-ro", "/", "--chdir", NAME]
    return [*command, "--", *view.command]


def read_pid(report: bytes) -> int | None:
    """The worker's process id outside, from what `--info-fd` wrote."""
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(report)["child-pid"])
    return None
