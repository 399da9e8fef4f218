"""To add a hook point takes one table row and one changed line of the model; the rest follows."""

import shutil
import subprocess
import sys
from pathlib import Path

import oss_lab

ROW = """\
        Point(
            "moe.stream",
            ("seq", "hidden"),
            "what the norm of the experts is fed",
            not_in_kernels_reason=FUSED,
        ),
"""
LINE = "self.norm(x)", 'self.norm(hook("moe.stream", x))'
USE = """
import warnings
import oss_lab, torch
from oss_lab.hooks.interventions import AddVector
from oss_lab.model.transformer import __file__ as where
assert where.startswith({folder!r}), where
warnings.simplefilter("error")
lab = oss_lab.load("nano", verbose=False)
tokens = list(range(40))
trace = lab.trace(tokens, ["moe.stream", "resid.mid"])
assert trace.origin.kernels == "reference"  # the row says that kernels do not show it
for layer in range(4):
    assert torch.equal(trace.tensor("moe.stream", layer), trace.tensor("resid.mid", layer))
assert trace["moe.stream"].dims == ("layer", "seq", "hidden")
assert lab.plan(tokens, ["moe.stream"]).total == 4 * 40 * 96 * 4
trace.save({folder!r} + "/run.safetensors")
from oss_lab.record.diff import compare_traces
from oss_lab.record.trace import read_trace
assert list(compare_traces(trace, read_trace({folder!r} + "/run.safetensors"))) == []
with lab.intervene(AddVector(point="moe.stream", layer=2, vector=torch.ones(96))) as effects:
    lab.trace(tokens, ["moe.out"])
assert effects.each[0].size > 0
from oss_lab.cli.main import main
main(["trace", "nano", "--points", "list"])
"""


def test_a_new_point_is_one_row_and_one_line(tmp_path):
    package = tmp_path / "oss_lab"
    shutil.copytree(Path(oss_lab.__file__).parent, package)
    before = replace_once(package / "hooks" / "points.py", *add_row())
    assert before.count("\n") == 6
    replace_once(package / "model" / "moe.py", *LINE)
    use = USE.format(folder=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "what the norm of the experts is fed" in ran.stdout


def add_row() -> tuple[str, str]:
    """Insert the row before that of the norm, in the order of the forward pass."""
    place = '        Point("moe.norm",'
    return place, ROW + place


def replace_once(file: Path, old: str, new: str) -> str:
    """Replace the only occurrence; return what was added."""
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    return new.replace(old, "") if old in new else new
