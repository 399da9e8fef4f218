"""`oss-lab notebooks DIR`: copies, and never replaces what a user changed."""

from pathlib import Path

import pytest

from oss_lab.cli.main import main
from oss_lab.course import notebook_files

ORIGINALS = Path(__file__).parents[2] / "notebooks"
NAMES = {path.relative_to(ORIGINALS) for path in ORIGINALS.rglob("*.*") if path.is_file()}


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_all_notebooks_are_copied_with_their_pictures(tmp_path, capsys):
    folder = tmp_path / "a" / "my notebooks"
    assert main(["notebooks", str(folder)]) == 0
    copied = contents(folder)
    assert copied == {name: (ORIGINALS / name).read_bytes() for name in copied}
    assert {name for name in NAMES if name.suffix == ".ipynb"} <= copied.keys()
    assert Path("images/tour.png") in copied
    out = capsys.readouterr().out
    assert out.count("wrote ") == len(copied)
    assert out.endswith(f"to open the tour: oss-lab lab '{folder / '00_tour.ipynb'}'\n")
    assert main(["notebooks", str(folder)]) == 0
    assert "wrote" not in capsys.readouterr().out


def test_a_changed_notebook_is_kept_until_told_otherwise(tmp_path, capsys):
    assert main(["notebooks", str(tmp_path)]) == 0
    changed, deleted = tmp_path / "10_inside.ipynb", tmp_path / "00_tour.ipynb"
    changed.write_text("mine")
    deleted.unlink()
    capsys.readouterr()
    assert main(["notebooks", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert "other versions of 10_inside.ipynb, and nothing was copied" in output.err
    assert (changed.read_text(), deleted.exists()) == ("mine", False)
    assert main(["notebooks", str(tmp_path), "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert f"replaced {changed}\n" in out
    assert f"wrote {deleted}\n" in out
    assert changed.read_bytes() == (ORIGINALS / changed.name).read_bytes()


def test_other_files_in_the_folder_stay(tmp_path):
    other = tmp_path / "mine.ipynb"
    other.write_text("mine")
    assert main(["notebooks", str(tmp_path), "--overwrite"]) == 0
    assert other.read_text() == "mine"


@pytest.mark.parametrize("there", ["a file", "a folder in the way"])
def test_what_is_in_the_way_is_one_sentence(there, tmp_path, capsys):
    folder = tmp_path / "there"
    if there == "a file":
        folder.write_text("")
    else:
        (folder / "00_tour.ipynb").mkdir(parents=True)
    assert main(["notebooks", str(folder), "--overwrite"]) == 1
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)


def test_an_installation_without_notebooks_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebook_files, "SOURCES", (tmp_path / "nowhere",))
    assert main(["notebooks", str(tmp_path / "out")]) == 1
    assert "this installation has no notebooks" in capsys.readouterr().err
