"""What the process in the sandbox can read: Python, its packages and the libraries they load.

No other file of the machine is in the view: no /etc, /proc, home or project. The worker's own
program is the only part of oss_lab in it.
"""

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
# The loader's list of libraries, for Pythons that link to some in unusual folders.
LOADER = ("/etc/ld.so.cache",)
PACKAGES = ("site-packages", "dist-packages")
# One thread each: their buffers count as memory, also when they are never filled.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class View:
    """Folders and files to show, and how to start the worker in them."""

    paths: tuple[str, ...]
    packages: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]


def find_view() -> View:
    """The view for this interpreter and its installed packages."""
    packages = [path for path in sys.path if Path(path).name in PACKAGES and os.path.isdir(path)]
    homes = (Path(sys.base_prefix), Path(base_python()).parent.parent)
    python = [str(home / name) for home in homes for name in ("bin", "lib", "lib64")]
    python += [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    wanted = [*LIBRARIES, *LOADER, *python, *packages, str(INSIDE)]
    environment = {"HOME": "/mnt/data", "LANG": "C.UTF-8", **dict.fromkeys(ONE_THREAD, "1")}
    return View(
        tuple(dict.fromkeys(path for path in wanted if os.path.exists(path))),
        tuple(packages),
        (base_python(), "-I", "-B", "-X", "utf8", "-c", BOOTSTRAP.format(folder=str(INSIDE))),
        environment,
    )


def base_python() -> str:
    """The interpreter itself, not the link to it in a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


# Loads `inside` under its own name. The packages around it, which cannot be read, are empty here.
BOOTSTRAP = """
import importlib.util, sys, types
for name in ("oss_lab", "oss_lab.agents", "oss_lab.agents.sandbox"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
spec = importlib.util.spec_from_file_location(
    "oss_lab.agents.sandbox.inside", {folder!r} + "/__init__.py",
    submodule_search_locations=[{folder!r}])
sys.modules[spec.name] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from oss_lab.agents.sandbox.inside.worker import main
main()
"""
