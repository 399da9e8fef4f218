"""Which sandbox is used, and the refusal where none works."""

import subprocess
import sys

import pytest

from oss_lab.agents.sandbox import Limits, PythonSandbox, bubblewrap, sandlock
from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.process import CannotStart
from oss_lab.errors import LabError


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandlock, "find_obstacle", lambda: "it needs Linux")
    monkeypatch.setattr(bubblewrap, "find_obstacle", lambda: "there is no `bwrap` command")


@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_it_refuses_in_one_sentence() -> None:
    with pytest.raises(LabError) as refusal:
        PythonSandbox()
    assert str(refusal.value) == (
        "the Python tool found no sandbox that works here (sandlock: it needs Linux; bubblewrap: "
        "there is no `bwrap` command); use it on Linux with `pip install 'oss-lab[sandbox]'`, or "
        "pass unsafe=True to run the model's code with your own rights"
    )


@pytest.mark.usefixtures("no_sandbox")
def test_unsafe_runs_the_code_and_says_so() -> None:
    with PythonSandbox(unsafe=True) as tool:
        assert tool.sandbox == "unsafe: none"
        assert tool.run("6 * 7").value == "42"


def test_unsafe_is_not_used_where_a_sandbox_works() -> None:
    try:
        PythonSandbox().close()
    except LabError as error:
        pytest.skip(f"no sandbox runs here: {error}")
    with PythonSandbox(unsafe=True) as tool:
        assert tool.sandbox in ("sandlock", "bubblewrap")


def test_sandlock_comes_first_and_bubblewrap_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sandlock", "bubblewrap"):
        try:
            PythonSandbox(use=name).close()
        except LabError as error:
            pytest.skip(f"{name} does not run here: {error}")
    with PythonSandbox() as tool:
        assert tool.sandbox == "sandlock"
    monkeypatch.setattr(sandlock, "find_obstacle", lambda: "simulated")
    with PythonSandbox() as tool:
        assert tool.sandbox == "bubblewrap"


def test_a_sandbox_that_does_not_start_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: DataFolder) -> None:
        raise CannotStart("setting up uid map: Permission denied")

    for module in (sandlock, bubblewrap):
        monkeypatch.setattr(module, "find_obstacle", lambda: None)
        monkeypatch.setattr(module, "start", fail)
    with pytest.raises(LabError, match="sandlock: setting up uid map: Permission denied; bubble"):
        PythonSandbox()
    with PythonSandbox(unsafe=True) as tool:
        assert tool.sandbox == "unsafe: none"


def test_a_restart_never_uses_a_weaker_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        tool = PythonSandbox(unsafe=True, use=None)
    except LabError as error:
        pytest.skip(f"no sandbox runs here: {error}")
    if tool.sandbox == "unsafe: none":
        pytest.skip("no sandbox runs here")

    def fail(data: DataFolder) -> None:
        raise CannotStart("simulated")

    with tool:
        object.__setattr__(tool._choice, "start", fail)
        tool.run("import os; os._exit(0)")
        with pytest.raises(LabError, match="does not start again in"):
            tool.run("1")


@pytest.mark.parametrize("use", ["docker", "none", "sandlok"])
def test_an_unknown_name_is_refused(use: str) -> None:
    with pytest.raises(LabError, match=f"there is no sandbox '{use}'"):
        PythonSandbox(use=use)


def test_no_sandbox_must_be_requested_twice() -> None:
    with pytest.raises(LabError, match="needs unsafe=True as well"):
        PythonSandbox(use="unsafe: none")


def test_obstacles_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert sandlock.find_obstacle() == bubblewrap.find_obstacle() == "it needs Linux"
    if sys.platform != "linux":
        pytest.skip("the other obstacles are those of Linux")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sandlock", None)
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert sandlock.find_obstacle() == "the package is not installed (extra `sandbox`)"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert bubblewrap.find_obstacle() == "there is no `bwrap` command (package bubblewrap)"


def test_an_old_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("sandlock", reason="sandlock is not installed (extra `sandbox`)")
    monkeypatch.setattr(package, "landlock_abi_version", lambda: 3)
    assert sandlock.find_obstacle() == (
        "it needs Landlock version 6 (Linux 6.12), this kernel has 3"
    )


def test_a_silent_exit_is_put_into_words() -> None:
    class Gone:
        exit_code, signal = 254, -1

    assert sandlock.describe(Gone()) == (
        "sandlock ended it without a message, as it does when limits are too small for Python"
    )


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory": 1000}, "memory must be at least 134,217,728, got 1,000"),
        ({"seconds": 0}, "seconds must be a number above 0, got 0"),
        ({"seconds": float("nan")}, "seconds must be a number above 0, got nan"),
        ({"seconds": float("inf")}, "seconds must be at most 86,400, got inf"),
        ({"output": 10**9}, "output must be at most 1,000,000, got 1,000,000,000"),
        ({"threads": True}, "threads must be a number above 0, got True"),
        ({"disk": 1.5}, "disk must be a number above 0, got 1.5"),
    ],
)
def test_limits_are_checked(limits: dict, message: str) -> None:
    with pytest.raises(LabError) as refusal:
        Limits(**limits)
    assert str(refusal.value) == message


def test_importing_the_package_needs_no_sandbox() -> None:
    code = "import sys; import oss_lab.agents.sandbox; print('sandlock' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
