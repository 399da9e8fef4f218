"""`oss-lab lab`: open JupyterLab on the tour, or on your own notebook.

The notebook is opened where it is. The server accepts connections from this machine only, and needs
Jupyter's token. Jupyter's news popup is off for this server; your Jupyter settings do not change.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from typer import Argument, BadParameter, Option

from oss_lab.errors import LabError

PACKAGE = Path(__file__).resolve().parents[1]
TOUR = PACKAGE.parent / "notebooks" / "00_tour.ipynb"
JUPYTER_CONFIG = PACKAGE / "assets" / "jupyter"


def check_port(port: int | None) -> int | None:
    """Raise BadParameter if --port is not a port number."""
    if port is not None and not 1 <= port <= 65535:
        raise BadParameter(f"{port} is not a port: give a number from 1 to 65535")
    return port


def run(
    notebook: Annotated[Path | None, Argument(help="a notebook (default: the tour)")] = None,
    no_browser: Annotated[bool, Option("--no-browser", help="only print the address")] = False,
    port: Annotated[
        int | None, Option(callback=check_port, help="port (default: a free one)")
    ] = None,
) -> int:
    """Open JupyterLab on the tour."""
    found = find_notebook(notebook)
    if port is not None:
        require_free(port)
    try:
        from jupyterlab import labapp
    except ModuleNotFoundError as error:
        if error.name != "jupyterlab":
            raise
        raise LabError('JupyterLab is not installed: run `pip install "oss-lab[lab]"`') from None
    path = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(JUPYTER_CONFIG), path]))
    labapp.main(server_arguments(found, port, no_browser=no_browser))
    return 0


def find_notebook(given: Path | None) -> Path:
    """The absolute path of the notebook to open.

    Raises:
        LabError: there is no such notebook.
    """
    if given is None:
        if not TOUR.is_file():
            raise LabError(
                "the installed package has no folder of notebooks to work in, unlike the source "
                f"tree: copy them with `oss-lab notebooks DIR`, then `oss-lab lab DIR/{TOUR.name}`"
            )
        return TOUR
    if not given.is_file():
        raise LabError(f"{given} does not exist: name an .ipynb file")
    if given.suffix != ".ipynb":
        raise LabError(f"{given} is not a notebook: name an .ipynb file")
    return given.resolve()


def require_free(port: int) -> None:
    """Raise LabError if the port is in use."""
    with socket.socket() as probe:
        if os.name == "posix":  # as the server does: a port that was just closed counts as free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LabError(
                f"port {port} is not available ({error.strerror}): choose another or omit --port"
            ) from None


def server_arguments(notebook: Path, port: int | None, *, no_browser: bool) -> list[str]:
    """JupyterLab's command line; each value follows `=`, so it cannot be read as an option."""
    arguments = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={notebook.parent}",
        f"--LabApp.default_url=/lab/tree/{quote(os.fsencode(notebook.name))}",
    ]
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if no_browser:
        arguments.append("--no-browser")
    if os.name == "posix" and os.geteuid() == 0:
        # Jupyter refuses to run as root by default, but in a container root is often the only user.
        print("oss-lab: running JupyterLab as root, for this machine only", file=sys.stderr)
        arguments.append("--allow-root")
    return arguments
