"""The layout of the code: which module imports which, no cycles, and the top level of the package.

Imports inside functions count. Imports under TYPE_CHECKING do not, since they never run.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "oss_lab": ROOT / "oss_lab",
    "oss_kernels": ROOT / "kernels/oss_kernels",
    "oss_widgets": ROOT / "widgets/oss_widgets",
}
Imports = dict[str, set[str]]


def imported_names(source: str) -> Iterator[str]:
    """Every dotted name that this source imports when it runs. `from a import b` also gives
    `a.b`.
    """
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{each.name}" for each in node.names)
        else:
            nodes += ast.iter_child_nodes(node)


def find_module(name: str, modules: set[str]) -> str | None:
    """The module with this name or that contains it; None if it is not ours."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


@cache
def imports() -> Imports:
    """Each of our modules with those of our modules that it imports."""
    files = {
        ".".join((package, *file.relative_to(folder).with_suffix("").parts)): file
        for package, folder in FOLDERS.items()
        for file in folder.rglob("*.py")
    }
    files = {name.removesuffix(".__init__"): file for name, file in files.items()}
    return {
        name: {
            found
            for each in imported_names(file.read_text("utf-8"))
            if (found := find_module(each, set(files))) not in (None, name)
        }
        for name, file in files.items()
    }


def find_cycle(graph: Imports) -> list[str] | None:
    """Modules that import each other in a cycle, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_files_import_each_other_in_a_cycle():
    assert find_cycle(imports()) is None


def test_a_cycle_would_be_found():
    lazily = "def f():\n    from oss_lab.b import g"
    for_types = "if TYPE_CHECKING:\n    from oss_lab.a import f\nelse:\n    import oss_lab.c"
    modules = {"oss_lab.a", "oss_lab.b"}
    assert [find_module(name, modules) for name in imported_names(lazily)] == ["oss_lab.b"]
    assert list(imported_names(for_types)) == ["oss_lab.c"]
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize(
    ("inside", "never"),
    [
        ("oss_kernels", "oss_lab"),
        ("oss_kernels", "oss_widgets"),
        ("oss_lab", "oss_widgets"),
        ("oss_lab.evaluation", "oss_lab.nano"),
        ("oss_lab.record", "oss_lab.lab"),
        ("oss_lab.model", "oss_lab.hooks"),
        ("oss_lab.model", "oss_lab.engine"),
        ("oss_lab.engine", "oss_lab.checkpoint"),
        ("oss_lab.engine", "oss_lab.harmony"),
        ("oss_lab.hooks", "oss_lab.engine"),
        ("oss_lab.hooks", "oss_lab.record"),
        ("oss_lab.record", "oss_lab.model"),
        ("oss_lab.record", "oss_lab.analysis"),
        ("oss_lab.harmony", "oss_lab.engine"),
    ],
)
def test_arrows_point_one_way(inside: str, never: str):
    for name, found in imports().items():
        if f"{name}.".startswith(f"{inside}."):
            assert not [each for each in found if f"{each}.".startswith(f"{never}.")], name


def test_no_file_imports_from_the_package_root():
    for name, found in imports().items():
        if name != "oss_lab":
            assert "oss_lab" not in found, f"{name} imports from oss_lab itself"


def test_the_top_of_the_package_reads_like_a_table_of_contents():
    uncounted = {"__main__.py", "__pycache__", "py.typed", "assets"}
    assert len({each.name for each in (ROOT / "oss_lab").iterdir()} - uncounted) <= 26
