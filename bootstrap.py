"""Set up oss_lab: create `.venv` in this folder and install the pinned packages into it.

    python3 bootstrap.py lab          what `make lab` needs
    python3 bootstrap.py lab test     what `make test` needs

An existing `.venv` keeps its Python, whichever Python runs this program. It is recreated if the
folder was moved or if its Python does not work. With --this-python it is also recreated if another
Python made it; `make` passes --this-python if the user names a PYTHON.

The arguments are extras of `pyproject.toml`; versions come from `constraints.txt`. Without an
NVIDIA GPU, PyTorch's CPU build is tried first: it is gigabytes smaller. A second run is quick and
changes nothing unless those files, the extras or the folder's path changed. The program uses only
the standard library and the syntax of Python 3.6, so an old Python prints a clear error.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "oss-lab-setup.json"
LOG = VENV / "oss-lab-setup.log"
CONSTRAINTS = ROOT / "constraints.txt"
SOURCES = (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__).resolve())
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LARGE_DOWNLOAD = r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]{2,} GB|\d\d[\d.]* MB)\)"
MINIMUM = (3, 11)
MIB = 1024 * 1024
FREE_NEEDED = 4 * 1024 * MIB  # the largest CPU set-up (3.2 GiB) plus pip's temporary files


def stop(sentence):
    """Print one sentence on stderr and exit with status 1."""
    sys.stderr.write("oss_lab set-up: " + sentence + "\n")
    raise SystemExit(1)


def say(sentence):
    """Print one sentence on stdout."""
    print("oss_lab set-up: " + sentence, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Set up oss_lab in .venv.")
    parser.add_argument("extras", nargs="*", default=["lab"], help="lab (default), test, lint, ...")
    parser.add_argument(
        "--this-python", action="store_true", help="recreate .venv if another Python made it"
    )
    options = parser.parse_args()
    wanted = set(options.extras)
    stamp = read_stamp()
    moved = stamp["folder"] not in (None, str(ROOT))
    running, kept = running_python(), environment_python()
    if kept not in (None, running) and not moved and not options.this_python:
        raise SystemExit(subprocess.call([str(PYTHON), str(Path(__file__).resolve()), *wanted]))
    check_python()
    unknown = sorted(wanted - read_extra_names())
    if unknown:
        stop(
            "unknown extra {}: choose from {}.".format(
                ", ".join(unknown), ", ".join(sorted(read_extra_names()))
            )
        )
    reason = find_rebuild_reason(moved, running, kept) if VENV.exists() else ""
    if not reason and stamp["state"] == hash_inputs() and wanted <= set(stamp["extras"]):
        return
    begin = time.monotonic()
    make_environment(reason)
    extras = sorted(wanted | set(stamp["extras"]))
    say("installing oss_lab with {} into .venv".format(" and ".join(extras)))
    torch_hint = install_torch()
    install(["-e", "{}[{}]".format(ROOT, ",".join(extras))], torch_hint)
    STAMP.write_text(
        json.dumps({"state": hash_inputs(), "extras": extras, "folder": str(ROOT)}) + "\n", "utf-8"
    )
    report(time.monotonic() - begin)


def check_python():
    """Stop if this Python is too old or cannot create virtual environments."""
    if sys.version_info < MINIMUM:
        stop(
            "Python {}.{} or newer is needed, but {} is Python {}; name a newer one, for "
            "example `make lab PYTHON=python3.12`.".format(
                *MINIMUM, sys.executable, platform.python_version()
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop(
            "this Python cannot create virtual environments (its venv module is not installed); "
            "on Debian and Ubuntu run `sudo apt install python3-venv`."
        )


def running_python():
    """The version and the installation path of the Python that runs this program."""
    return [sys.version, os.path.realpath(sys.base_prefix)]


def environment_python():
    """The same for the Python of `.venv`; None if it does not run, is too old or has no pip."""
    code = (
        "import json, os, pip, sys; assert sys.version_info >= {}; "
        "print(json.dumps([sys.version, os.path.realpath(sys.base_prefix)]))".format(MINIMUM)
    )
    try:
        answer = subprocess.run(
            [str(PYTHON), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return json.loads(answer.stdout.decode()) if answer.returncode == 0 else None


def find_rebuild_reason(moved, running, kept):
    """Why `.venv` must be recreated, as the end of a sentence; empty if it can stay."""
    if moved:
        return "this folder was moved, and .venv contains absolute paths"
    if kept is None:
        return "its Python does not run, is too old or has no pip"
    if kept != running:
        pythons = ["{} in {}".format(version.split()[0], path) for version, path in (kept, running)]
        return "it has Python {}, but you named {}".format(*pythons)
    return ""


def read_extra_names():
    import tomllib  # new in Python 3.11, so not at the top of the file

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return set(project["optional-dependencies"])


def hash_inputs():
    """A hash of everything that determines what gets installed."""
    digest = hashlib.sha256(sys.version.encode())
    for path in SOURCES:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_stamp():
    """What the last complete set-up wrote; empty values if there was none."""
    try:
        return json.loads(STAMP.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: truncated, for example on a full disk
        return {"state": None, "extras": [], "folder": None}


def make_environment(rebuild_reason):
    """Create `.venv` if there is none, or recreate it if `rebuild_reason` is not empty."""
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists():
        stop("{} is in the way: it is not a virtual environment; move it.".format(VENV))
    if not rebuild_reason and VENV.exists():
        return
    free = shutil.disk_usage(str(ROOT)).free
    if free < FREE_NEEDED:
        stop(
            "{} has {} MiB free, but the set-up needs {} MiB; free some space first.".format(
                ROOT, free // MIB, FREE_NEEDED // MIB
            )
        )
    if rebuild_reason:
        say("recreating .venv: {}".format(rebuild_reason))
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        last = (made.stdout.strip().splitlines() or ["no message"])[-1]
        stop("creating .venv failed: {}".format(last))


def install_torch():
    """Install PyTorch's CPU build if there is no NVIDIA GPU.

    Returns a hint for the error about a full disk if the CPU build was not available, else "".
    """
    (pinned,) = re.findall(r"(?m)^torch==(\S+)$", CONSTRAINTS.read_text("utf-8"))
    if sys.platform != "linux" or has_nvidia_gpu():
        return ""  # for a GPU and for other systems, the package index has the right build
    if installed_version("torch").split("+")[0] == pinned:
        return ""
    say("no NVIDIA GPU found: installing the CPU build of PyTorch {}".format(pinned))
    build = "torch=={}+cpu".format(pinned)
    if pip(["--no-deps", "--retries=0", "--timeout=15", "--index-url", CPU_INDEX, build]):
        say("{} is not available; installing the package index's build".format(CPU_INDEX))
        return " (PyTorch's full build for Linux needs about 6 GiB)"
    return ""


def has_nvidia_gpu():
    tool = shutil.which("nvidia-smi")
    if not tool:
        return False
    listed = subprocess.run([tool, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return listed.returncode == 0 and b"GPU" in listed.stdout


def installed_version(package):
    """The version of a package in `.venv`, or an empty string if it is not installed."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    answer = subprocess.run(
        [str(PYTHON), "-c", code, package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return answer.stdout.decode().strip()


def install(arguments, hint):
    """Run pip install with the constraints; stop with one sentence if it fails."""
    errors = pip([*arguments, "-c", str(CONSTRAINTS)])
    if not errors:
        return
    text = "\n".join(errors)
    if "No space left" in text or "Errno 28" in text:
        reason = "the disk is full" + hint
    elif re.search(r"name resolution|getaddrinfo|Connection|timed out", text):
        reason = "pip cannot reach the package index; is this machine online?"
    else:
        reason = "pip says: " + errors[0]
    stop("{} (pip's complete output is in {})".format(reason, LOG.relative_to(ROOT)))


def pip(arguments):
    """Run pip install, show its large downloads and log the rest. Returns the error lines."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", *arguments]
    environment = dict(os.environ)
    environment.setdefault("PIP_RETRIES", "2")  # pip's own five take minutes when offline
    errors = []
    with LOG.open("a", encoding="utf-8") as log:
        running = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        for line in running.stdout or ():
            log.write(line)
            large = re.match(LARGE_DOWNLOAD, line)
            if large:
                say("  {} {}".format(large.group(2), large.group(1).split("/")[-1]))
            elif line.startswith("Installing collected packages:"):
                say("  unpacking {} packages".format(line.count(",") + 1))
            elif re.match(r"\s*ERROR:|.*Errno 28", line):
                errors.append(line.strip().replace("ERROR: ", "", 1))
            elif "Connection" in line or "name resolution" in line:
                errors.append(line.strip())
    if running.wait() == 0:
        return []
    return errors or ["exit status {}".format(running.returncode)]


def report(seconds):
    """Print what was installed, its size and how long it took."""
    files = [Path(folder, name) for folder, _, names in os.walk(str(VENV)) for name in names]
    size = sum(path.lstat().st_size for path in files)
    packages = len(list(VENV.glob("**/site-packages/*.dist-info")))
    say(
        "ready in {:.0f} s: .venv has {:,} MiB in {} packages, including PyTorch {}".format(
            seconds, size // MIB, packages, installed_version("torch")
        )
    )


if __name__ == "__main__":
    main()
