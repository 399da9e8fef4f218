"""Docstrings of this project as elements of a page.

A docstring has paragraphs, indented examples, lists, and the sections `Args:`, `Attributes:`,
`Returns:`, `Yields:` and `Raises:`. Text in backticks is code. The members of an enumeration have
comments instead, and a value has a string after its assignment.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from enum import EnumType
from types import GenericAlias
from typing import Any

from docutils import nodes
from sphinx.pycode import ModuleAnalyzer

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):\n")
ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)  # a line without indentation starts an entry
EXAMPLE = re.compile(r" |>{3}")
ITEM = re.compile(r"^(?:-|\d+\.) ", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
MEMBER = re.compile(r"^ {4}(\w+) = .*?(?: {2}# (.*))?$", re.MULTILINE)
PREFIX = re.compile(r"\b(?:\w+\.)+(?=\w)")  # the module of a name
WIDTH = 84  # characters of a line of code
UNBROKEN = "\N{NO-BREAK SPACE}"


class Shown(str):
    """A text that a signature shows without quotes."""

    __repr__ = str.__str__


def describe_value(name: str, of: Any, module: str) -> nodes.section:
    """A section about a value that `module` exports: what it is, and the value if it is short.

    Its text is the string after its assignment, in `module` or in one of its submodules.
    """
    section = start_section(name)
    short = PREFIX.sub("", repr(of))
    if len(line := f"{name} = {short}") <= WIDTH:
        section += make_code(line)
    for other in sorted(key for key in sys.modules if f"{key}.".startswith(f"{module}.")):
        if vars(sys.modules[other]).get(name) is of:
            texts = ModuleAnalyzer.for_module(other).find_attr_docs()
            section += list(describe("\n".join(texts.get(("", name), ()))))
    return section


def is_value(of: Any) -> bool:
    """Whether something is neither a class nor a function; a type such as `list[int]` is one."""
    return not callable(of) or isinstance(of, GenericAlias)


def describe_object(name: str, of: Any, level: str = "") -> nodes.section:
    """A section about a class or a function; a class has its public methods in it."""
    full = f"{level}{name}"
    section = start_section(full)
    if isinstance(of, EnumType):
        section += [*describe(inspect.getdoc(of)), describe_members(of)]
        return section
    if callable(of) and (signature := find_signature(name, of)):
        section += make_code(signature)
    section += list(describe(inspect.getdoc(of)))
    if inspect.isclass(of):
        for key, member in vars(of).items():
            is_method = callable(member) or isinstance(member, property)
            if key[0] != "_" and is_method and member.__doc__:  # not one that is only inherited
                section += describe_object(key, member, f"{full}.")
    return section


def start_section(title: str) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(title)], names=[title])
    section += nodes.title("", "", nodes.literal("", title))
    return section


def describe_members(of: EnumType) -> nodes.definition_list:
    """The members of an enumeration, each with the comment on its line."""
    return make_entries(MEMBER.findall(inspect.getsource(of)))


def find_signature(name: str, of: Any) -> str | None:
    """A call with all arguments, and their types if they fit in a line.

    Arguments whose name starts with an underscore are left out.
    """
    try:
        signature = inspect.signature(of)
    except (ValueError, TypeError):
        return None
    given = signature.parameters.values()
    arguments = [each for each in given if each.name != "self" and each.name[0] != "_"]
    returned = signature.empty if inspect.isclass(of) else show_type(signature.return_annotation)
    typed = [each.replace(annotation=show_type(each.annotation)) for each in arguments]
    text = name + str(signature.replace(parameters=typed, return_annotation=returned))
    if len(text) <= WIDTH and "<" not in text:
        return text
    is_named = [each.kind is each.KEYWORD_ONLY for each in arguments]
    parts = [show_argument(each).replace(" ", UNBROKEN) for each in arguments]
    if any(is_named) and all(each.kind is not each.VAR_POSITIONAL for each in arguments):
        parts.insert(is_named.index(True), "*")
    lines = textwrap.fill(
        f"{name}({', '.join(parts)})",
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace(UNBROKEN, " ")


def show_type(annotation: Any) -> Any:
    """An annotation without modules and quotes."""
    if annotation is inspect.Signature.empty:
        return annotation
    is_text = isinstance(annotation, str)
    text = annotation if is_text else inspect.formatannotation(annotation)
    return Shown(PREFIX.sub("", text).replace("'", ""))


def show_argument(argument: inspect.Parameter) -> str:
    """An argument with its default; one that is not plain is shown as `...`."""
    stars = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
    if argument.default is argument.empty:
        return f"{stars}{argument.name}"
    is_plain = isinstance(argument.default, str | int | float | None)
    return f"{argument.name}={repr(argument.default) if is_plain else '...'}"


def describe(text: str | None) -> Iterator[nodes.Element]:
    """The elements of a docstring, from top to bottom."""
    for block in re.split(r"\n\s*\n", text or ""):
        lines = block.strip("\n")
        if not lines.strip():
            continue
        if match := SECTION.match(lines):
            yield nodes.rubric("", match[1])
            yield from describe_section(match[1], textwrap.dedent(lines[match.end() :]))
        elif EXAMPLE.match(lines):
            yield make_code(textwrap.dedent(lines))
        elif ITEM.match(lines):
            items = ITEM.split(lines)[1:]
            yield nodes.bullet_list("", *(nodes.list_item("", make_text(each)) for each in items))
        else:
            yield make_text(lines)


def describe_section(title: str, text: str) -> Iterator[nodes.Element]:
    """What follows `Args:` and the like."""
    if title in ("Returns", "Yields"):
        yield make_text(text)
        return
    entries = (entry.partition(": ") for entry in ENTRY.split(text) if entry)
    yield make_entries((name, meaning) for name, _, meaning in entries)


def make_entries(entries: Iterable[tuple[str, str]]) -> nodes.definition_list:
    """Names with their meanings."""
    made = nodes.definition_list()
    for name, meaning in entries:
        term, definition = nodes.term("", "", *make_inline(name)), make_text(meaning)
        made += nodes.definition_list_item("", term, nodes.definition("", definition))
    return made


def make_text(text: str) -> nodes.paragraph:
    return nodes.paragraph("", "", *make_inline(" ".join(text.split())))


def make_inline(text: str) -> Iterator[nodes.Node]:
    """Text with code in backticks."""
    for n, part in enumerate(CODE.split(text)):
        if part:
            yield nodes.literal("", part) if n % 2 else nodes.Text(part)


def make_code(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="python")
