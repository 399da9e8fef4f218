"""No sandbox at all: a plain process with the rights of the user. Only on explicit request.

It can do whatever the user can. Time, output and the size of /mnt/data are still limited, memory,
threads and network are not. It is a separate process, so a crash does not end the notebook.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.process import CannotStart, Process, wait_for
from oss_lab.agents.sandbox.view import find_view

KEPT = ("PATH", "SYSTEMROOT", "TEMP", "TMP")  # Windows needs them to start Python


def start(data: DataFolder) -> Process:
    """Start the worker. Raises CannotStart."""
    view = find_view()
    environment = {**{name: os.environ[name] for name in KEPT if name in os.environ}}
    environment |= view.environment | {"HOME": str(data.path)}
    try:
        child = subprocess.Popen(
            [sys.executable, *view.command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=data.path,
            env=environment,
            start_new_session=os.name == "posix",
        )
    except OSError as error:
        raise CannotStart(f"Python does not start ({error})") from error
    pipes = (child.stdin, child.stdout, child.stderr)

    def kill() -> None:
        """The whole session where there is one; children that left it stay."""
        if os.name == "posix":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        child.kill()

    return Process(pipes, str(data.path), wait_for(child), kill=kill)
