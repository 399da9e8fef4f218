"""Every path, command and name that prose mentions in backticks exists.

Prose is Markdown, docstrings, and Markdown cells of notebooks. The form decides what is checked:
- a path: a file or folder of the repository, or a file that the code writes or reads;
- `oss-lab x`, `python -m x`, `make x` and their options: the command and its options;
- a dotted name: a hook point, or a module, class or object of ours that has these members;
- a call, or a name with an underscore or an inner capital: an identifier in the code.
Other text in backticks (plain words, tokens, expressions) is not checked.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from posixpath import normpath
from typing import NamedTuple

import pytest

from oss_lab.cli.main import build_group
from oss_lab.hooks.points import POINTS

PACKAGES = {"oss_lab": "", "oss_kernels": "kernels/", "oss_widgets": "widgets/"}
# What belongs to other libraries and file formats, or is an example.
FOREIGN_ROOTS = {"torch", "tl", "cgutils", "functions", "metadata", "rope_scaling"}
FOREIGN_NAMES = {"StreamableParser", "json_schema_to_typescript", "allOf"}
FOREIGN_FILES = {"src/encoding.rs", "tiktoken_ext/openai_public.py", "00000.safetensors"}
OBJECTS = {"lab", "reply", "trace", "batch", "tree", "recorder"}  # of the class of that name
NAMES_PAGE = "oss_lab/hooks/NAMES.md"  # nearly all of its names belong to other libraries
THIS_FILE = "tests/lab/test_names_in_prose.py"
PLAIN_BASES = {"NamedTuple", "Protocol", "Generic", "ABC", "Enum", "TypedDict"}

SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]+(?:\n[^`\n]+)?)(?<!`)\1(?!`)")
SUFFIX = "py|md|ipynb|js|json|jsonl|toml|txt|cfg|html|csv|safetensors|rs|yml|log|png"
PATH = re.compile(rf"[\w./-]+\.({SUFFIX})|[\w.-]+(/[\w.-]+)*/")
COMMAND = re.compile(r"(?:\.venv/bin/)?(oss-lab|python -m|make)(?: (.*))?", re.DOTALL)
OPTION = re.compile(r"--[a-z][\w-]*")
DOTTED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:[(\[].*)?", re.DOTALL)
CALL = re.compile(r"([A-Za-z_]\w*)\(.*\)", re.DOTALL)
KEYWORD = re.compile(r"([a-z]\w*)=.*", re.DOTALL)
NAME = re.compile(r"(_\w+|[A-Za-z]\w*_\w+|[A-Za-z]*[a-z][A-Z]\w*)")


class Mention(NamedTuple):
    """Text in backticks, and where it is. In a notebook, `line` is the number of the cell."""

    file: str
    line: int
    text: str


def find_mentions(file: str, source: str) -> Iterator[Mention]:
    """Everything in backticks in the prose of one file."""
    for first, text in find_prose(file, source):
        blocks = re.compile("```.*?```", re.DOTALL)
        prose = blocks.sub(lambda block: "\n" * block[0].count("\n"), text)
        for match in SPAN.finditer(prose):
            lines = 0 if file.endswith(".ipynb") else prose[: match.start()].count("\n")
            yield Mention(file, first + lines, " ".join(match[2].split()))


def find_prose(file: str, source: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each piece of prose."""
    if file.endswith(".ipynb"):
        for number, cell in enumerate(json.loads(source)["cells"]):
            if cell["cell_type"] == "markdown":
                yield number, "".join(cell["source"])
    elif file == "CHANGELOG.md":  # without what was removed, and the names before a change
        text = source.partition("\n### Removed")[0]
        yield 1, re.sub(r"^  \|[^|]*\|", "  |", text, flags=re.MULTILINE)
    elif file.endswith(".md"):
        yield 1, source
    elif file.endswith(".py"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False)
                if doc:
                    yield node.body[0].lineno, doc


class Code:
    """What Python files define, and the words that they use."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.words: set[str] = set()  # identifiers, modules, and words in strings
        self.strings: set[str] = set()
        self.modules: dict[str, set[str]] = {}  # the names at the top level of each module
        self.members: dict[str, set[str]] = {}
        self.bases: dict[str, set[str]] = {}
        for file, source in sources.items():
            tree, module = ast.parse(source), name_module(file)
            self.modules[module] = set(find_top_level_names(tree))
            self.words.add(module.rpartition(".")[2])
            docstrings = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            }
            for node in ast.walk(tree):
                if id(node) not in docstrings:
                    self.add(node)

    def add(self, node: ast.AST) -> None:
        match node:
            case ast.ClassDef(name=name):
                self.words.add(name)
                self.members.setdefault(name, set()).update(find_members(node))
                bases = (ast.unparse(base).partition("[")[0] for base in node.bases)
                names = {base.rpartition(".")[2] for base in bases}
                self.bases.setdefault(name, set()).update(names)
            case ast.FunctionDef(name=name) | ast.Name(id=name) | ast.Attribute(attr=name):
                self.words.add(name)
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                self.words.add(name)
            case ast.alias(name=name):
                self.words.update(name.split("."))
            case ast.Constant(value=str(text)):
                self.words.update(re.findall(r"\w+", text))
                self.strings.update([text, *re.findall(r"[\w.-]+\.\w+", text)])

    def has_member(self, name: str, member: str) -> bool:
        """Whether a class has this attribute. A base from another library may have any."""
        if member in self.members[name]:
            return True
        bases = self.bases[name] - PLAIN_BASES
        return any(
            self.has_member(base, member) if base in self.members else True for base in bases
        )

    def defines(self, parts: list[str]) -> bool:
        """Whether these are the end of a module's name, and names inside that module."""
        for cut in range(len(parts), 0, -1):
            end, rest = "." + ".".join(parts[:cut]), parts[cut:]
            for module, names in self.modules.items():
                if not f".{module}".endswith(end) or (rest and rest[0] not in names):
                    continue
                if len(rest) < 2 or rest[0] not in self.members or self.has_member(*rest[:2]):
                    return True
        return False


def name_module(file: str) -> str:
    """`kernels/oss_kernels/bench/__init__.py` -> `oss_kernels.bench`."""
    for package, folder in PACKAGES.items():
        if file.startswith(f"{folder}{package}/"):
            file = file.removeprefix(folder)
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def find_top_level_names(tree: ast.Module) -> Iterator[str]:
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        match nodes.pop():
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (each.asname or each.name for each in names)
            case (ast.Assign() | ast.AnnAssign()) as node:
                yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
            case (ast.If() | ast.Try() | ast.With()) as node:
                nodes += ast.iter_child_nodes(node)


def find_members(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        match each:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


class Project:
    """The tracked files, and whether they contain what a mention names."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.paths = set(files)
        self.paths |= {f"{each}/" for file in files for each in PurePosixPath(file).parents}
        python = (name for name in files if name.endswith(".py") and name != THIS_FILE)
        sources = {name: files[name] for name in python}
        self.code = Code(sources)
        self.options = {option for text in sources.values() for option in OPTION.findall(text)}

    def complain(self, mention: Mention) -> str | None:
        """Why what is mentioned does not exist; None if it does, or is not checked."""
        text = mention.text
        if match := COMMAND.fullmatch(text):
            return self.complain_about_command(match[1], (match[2] or "").split())
        if OPTION.fullmatch(text):
            return None if text in self.options else "no program has this option"
        if PATH.fullmatch(text) and self.has_path(text, mention.file):
            return None
        if mention.file == NAMES_PAGE and not PATH.fullmatch(text):
            return None
        if match := DOTTED.fullmatch(text):
            return None if self.has_dotted_name(match[1].split(".")) else "no such file or name"
        if PATH.fullmatch(text):
            return "no such file"
        match = CALL.fullmatch(text) or KEYWORD.fullmatch(text) or NAME.fullmatch(text)
        if match and match[1] not in self.code.words | FOREIGN_NAMES:
            return "no such identifier"
        return None

    def has_path(self, text: str, file: str) -> bool:
        """From the root or the file's folder, the end of a path, or a file that the code names."""
        relative = normpath(str(PurePosixPath(file).parent / text)) + "/" * text.endswith("/")
        ends = any(path.endswith(f"/{text}") for path in self.paths)
        if ends or self.paths & {text, relative} or text in FOREIGN_FILES:
            return True
        if text.endswith("/"):
            return text.rstrip("/") in self.code.words
        return not text.endswith(".py") and PurePosixPath(text).name in self.code.strings

    def has_dotted_name(self, parts: list[str]) -> bool:
        code, (first, *others) = self.code, parts
        name = ".".join(parts)
        if name in POINTS or name in code.strings or first in FOREIGN_ROOTS or code.defines(parts):
            return True
        if first in PACKAGES:
            return False
        name = first.capitalize() if first in OBJECTS else first
        if name in code.members:
            return code.has_member(name, others[0])
        known = set().union(*code.members.values())
        return first in code.words and known.issuperset(others)

    def complain_about_command(self, program: str, words: list[str]) -> str | None:
        options = [word for word in words if OPTION.fullmatch(word)]
        if program == "make":
            target = re.compile(f"^{words[0]}:" if words else "", re.MULTILINE)
            return None if target.search(self.files["Makefile"]) else "no such make target"
        known = self.options
        if program == "oss-lab":
            command = build_group()
            commands = command.commands
            while words and words[0] in commands:
                command, words = commands[words[0]], words[1:]
                commands = getattr(command, "commands", {})
            if commands and words and not words[0].startswith("-"):
                return "no such command"
            known = {flag for each in command.params for flag in each.opts} | {"--help"}
        elif words and words[0].partition(".")[0] in PACKAGES:
            path = PACKAGES[words[0].partition(".")[0]] + words[0].replace(".", "/")
            has_main = f"{path}/__main__.py" in self.files
            if not has_main and "__main__" not in self.files.get(f"{path}.py", ""):
                return "no such program"
        return next((f"no option {each}" for each in options if each not in known), None)


@pytest.fixture(scope="module")
def project(tracked_files: dict[str, str]) -> Project:
    return Project(tracked_files)


def test_everything_in_backticks_exists(project: Project) -> None:
    missing = [
        f"{mention.file}:{mention.line}: `{mention.text}`: {reason}"
        for file, source in project.files.items()
        if file != THIS_FILE
        for mention in find_mentions(file, source)
        if (reason := project.complain(mention))
    ]
    listed = "\n".join(missing)
    assert not missing, f"{len(missing)} mentions of what does not exist:\n{listed}"


@pytest.mark.parametrize(
    "text",
    [
        "oss_lab/no_such_folder/",
        "no_such_file.py",
        "oss_lab/analysis/no_such_file.py",
        "oss-lab no-such-command",
        "oss-lab chat --option-of-no-program",
        "python -m oss_lab.no_such_program",
        "make no-such-target",
        "--option-of-no-program",
        "oss_lab.no_such_module",
        "hooks.points.NO_SUCH_NAME",
        "Reply.no_such_member",
        "lab.no_such_member",
        "no_such_function()",
        "NoSuchClass",
    ],
)
def test_what_does_not_exist_is_found(project: Project, text: str) -> None:
    (mention,) = find_mentions("README.md", f"A sentence with `{text}`.")
    assert project.complain(mention)


@pytest.mark.parametrize(
    "text",
    [
        "oss_lab/hooks/points.py",
        "recipe.json",
        "oss-lab chat --effort high",
        ".venv/bin/oss-lab trace nano --points list",
        "python -m oss_lab.proof",
        "make test",
        "oss_lab.hooks.points.POINTS",
        "hooks.points",
        "moe.expert_ids",
        "Reply.stop",
        "lab.trace(text)",
        "torch.equal",
        "AblateHead(layer=3, head=6)",
        "three plain words",
    ],
)
def test_what_exists_is_accepted(project: Project, text: str) -> None:
    (mention,) = find_mentions("README.md", f"A sentence with `{text}`.")
    assert project.complain(mention) is None
