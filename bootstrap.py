"""Sets up oss_lab: makes `.venv` in this folder and installs the pinned packages into it.

    python3 bootstrap.py lab          what `make lab` needs
    python3 bootstrap.py lab test     what `make test` needs

An existing `.venv` keeps the Python that it was made with, whichever runs this program. It is made
anew where the folder was moved, where that Python is of no use, or, with --this-python, where it is
not the one that runs; `make` says --this-python where the user names a PYTHON.

The words are extras of `pyproject.toml`; versions come from `constraints.txt`. Where no NVIDIA GPU
is found, PyTorch's CPU build is tried first: it is gigabytes smaller. Running it again is quick and
changes nothing unless those files, the extras or the folder's place changed. Only the standard
library is used, and no syntax that Python 3.6 cannot read, so that an old Python is told so.
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
FREE_NEEDED = 4 * 1024 * MIB  # the largest CPU set-up (3.2 GiB) and what pip unpacks beside it


def stop(sentence):
    """Ends with one sentence on stderr and status 1."""
    sys.stderr.write("oss_lab set-up: " + sentence + "\n")
    raise SystemExit(1)


def say(sentence):
    print("oss_lab set-up: " + sentence, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Set up oss_lab in .venv.")
    parser.add_argument("extras", nargs="*", default=["lab"], help="lab (default), test, lint, ...")
    parser.add_argument(
        "--this-python", action="store_true", help="make .venv anew where another Python made it"
    )
    options = parser.parse_args()
    wanted = set(options.extras)
    stamp = read_stamp()
    moved = stamp["folder"] not in (None, str(ROOT))
    running, kept = running_python(), environment_python()
    if kept not in (None, running) and not moved and not options.this_python:
        raise SystemExit(subprocess.call([str(PYTHON), str(Path(__file__).resolve()), *wanted]))
    check_python()
    unknown = sorted(wanted - known_extras())
    if unknown:
        stop(
            "there is no extra named {}: choose from {}.".format(
                ", ".join(unknown), ", ".join(sorted(known_extras()))
            )
        )
    anew = why_anew(moved, running, kept) if VENV.exists() else ""
    if not anew and stamp["state"] == state() and wanted <= set(stamp["extras"]):
        return
    begin = time.monotonic()
    make_environment(anew)
    extras = sorted(wanted | set(stamp["extras"]))
    say("installing oss_lab with {} into .venv".format(" and ".join(extras)))
    torch_hint = install_torch()
    install(["-e", "{}[{}]".format(ROOT, ",".join(extras))], torch_hint)
    STAMP.write_text(
        json.dumps({"state": state(), "extras": extras, "folder": str(ROOT)}) + "\n", "utf-8"
    )
    report(time.monotonic() - begin)


def check_python():
    """Refuses a Python that is too old, or one that cannot make virtual environments."""
    if sys.version_info < MINIMUM:
        stop(
            "Python {}.{} or newer is needed and {} is {}; name a newer one, for example "
            "`make lab PYTHON=python3.12`.".format(
                *MINIMUM, sys.executable, platform.python_version()
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop(
            "this Python cannot make virtual environments (its venv module is not installed); "
            "on Debian and Ubuntu `sudo apt install python3-venv` adds it."
        )


def running_python():
    """The version and the place of the Python that runs this, whichever environment it is in."""
    return [sys.version, os.path.realpath(sys.base_prefix)]


def environment_python():
    """The same of `.venv`'s Python; None where it does not run, is too old or has no pip."""
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


def why_anew(moved, running, kept):
    """Why the `.venv` that is there cannot stay, as the end of a sentence; empty where it can."""
    if moved:
        return "this folder was moved, and its programs hold paths"
    if kept is None:
        return "its Python does not run, is too old or lacks pip"
    if kept != running:
        named = ["{} in {}".format(version.split()[0], place) for version, place in (kept, running)]
        return "it has Python {}, and you named {}".format(*named)
    return ""


def known_extras():
    import tomllib  # new in 3.11, hence not at the top

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return set(project["optional-dependencies"])


def state():
    """A hash of all that decides what gets installed."""
    digest = hashlib.sha256(sys.version.encode())
    for path in SOURCES:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_stamp():
    """What the last complete set-up wrote; empty values where there was none."""
    try:
        return json.loads(STAMP.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: cut short, as on a full disk
        return {"state": None, "extras": [], "folder": None}


def make_environment(anew):
    """Creates `.venv` where there is none, or again where `anew` says why it has to be."""
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists():
        stop("{} is in the way: it is not a virtual environment; move it.".format(VENV))
    if not anew and VENV.exists():
        return
    free = shutil.disk_usage(str(ROOT)).free
    if free < FREE_NEEDED:
        stop(
            "{} has {} MiB free and the set-up needs {} MiB; make room and run it again.".format(
                ROOT, free // MIB, FREE_NEEDED // MIB
            )
        )
    if anew:
        say("making .venv anew: {}".format(anew))
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        last = (made.stdout.strip().splitlines() or ["no message"])[-1]
        stop("making .venv failed: {}".format(last))


def install_torch():
    """Installs PyTorch's CPU build where that is the one to have; returns a word for a failure."""
    (pinned,) = re.findall(r"(?m)^torch==(\S+)$", CONSTRAINTS.read_text("utf-8"))
    if sys.platform != "linux" or has_nvidia_gpu():
        return ""  # elsewhere, and for a GPU, the package index has the right build
    if installed_version("torch").split("+")[0] == pinned:
        return ""
    say("no NVIDIA GPU here: taking PyTorch {}'s CPU build".format(pinned))
    build = "torch=={}+cpu".format(pinned)
    if pip(["--no-deps", "--retries=0", "--timeout=15", "--index-url", CPU_INDEX, build]):
        say("it cannot be had from {}; taking the package index's build".format(CPU_INDEX))
        return " (PyTorch's full build for Linux needs about 6 GiB)"
    return ""


def has_nvidia_gpu():
    tool = shutil.which("nvidia-smi")
    if not tool:
        return False
    listed = subprocess.run([tool, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return listed.returncode == 0 and b"GPU" in listed.stdout


def installed_version(package):
    """The version of a package in `.venv`, or an empty string."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    answer = subprocess.run(
        [str(PYTHON), "-c", code, package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return answer.stdout.decode().strip()


def install(arguments, hint):
    """pip install under the constraints, or one sentence about why not."""
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
    stop("{} (all of pip's output is in {})".format(reason, LOG.relative_to(ROOT)))


def pip(arguments):
    """Runs pip install, shows its large downloads, logs the rest; returns its error lines."""
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
    """What was installed, how large it is, how long it took."""
    files = [Path(folder, name) for folder, _, names in os.walk(str(VENV)) for name in names]
    size = sum(path.lstat().st_size for path in files)
    packages = len(list(VENV.glob("**/site-packages/*.dist-info")))
    say(
        "ready in {:.0f} s: .venv holds {:,} MiB in {} packages, PyTorch {} among them".format(
            seconds, size // MIB, packages, installed_version("torch")
        )
    )


if __name__ == "__main__":
    main()
