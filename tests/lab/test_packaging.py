"""The wheel contains all three packages and the assets, and nothing from this machine or the
tests.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed (extra `test`)")

ROOT = Path(__file__).resolve().parents[2]
ASSETS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "oss_lab/assets").rglob("*")
    if path.is_file()
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("oss_lab-*.whl")
    return built


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*command, arguments[0], "--no-deps", *arguments[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_contains_every_source_file_and_asset(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        path.relative_to(root).as_posix()
        for root, package in (
            (ROOT, "oss_lab"),
            (ROOT / "kernels", "oss_kernels"),
            (ROOT / "widgets", "oss_widgets"),
        )
        for path in (root / package).rglob("*")
        if path.suffix in {".py", ".js", ".css", ".md"}
    }
    assert sources <= names
    assert ASSETS
    assert set(ASSETS) <= names


def test_the_wheel_contains_the_notebooks_for_a_user(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from oss_lab.cli.main import main"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}; sys.exit(main())", str(site), "notebooks", "copies"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for original in (ROOT / "notebooks").glob("*.ipynb"):
        assert (tmp_path / "copies" / original.name).read_bytes() == original.read_bytes()
    assert (tmp_path / "copies" / "images" / "tour.png").is_file()


def test_the_wheel_contains_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "oss_kernels",
        "oss_lab",
        "oss_widgets",
    }


def test_the_wheel_names_no_path_of_this_machine(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        content = archive.read(name)
        for place in (str(ROOT), str(Path.home()) + "/"):
            assert place.encode() not in content, f"{name} holds {place}"


def test_packages_and_assets_load_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
import importlib, importlib.metadata, importlib.resources, sys
site, *assets = sys.argv[1:]
sys.path.insert(0, site)
for name in ("oss_lab", "oss_kernels", "oss_widgets", "oss_lab.cli.main"):
    assert importlib.import_module(name).__file__.startswith(site), name
for asset in assets:
    assert importlib.resources.files("oss_lab").joinpath(asset).read_bytes(), asset
import oss_lab
assert importlib.metadata.version("oss-lab") == oss_lab.__version__
"""
    inside = [name.removeprefix("oss_lab/") for name in ASSETS]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site"), *inside],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
