"""Docstrings of this project as elements of a page.

A docstring has paragraphs, indented examples, lists, and the sections `Args:`, `Attributes:`,
`Returns:`, `Yields:` and `Raises:`. Text in backticks is code.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from docutils import nodes

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):\n")
ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)  # a line without indentation starts an entry
EXAMPLE = re.compile(r" |>{3}")
ITEM = re.compile(r"^(?:-|\d+\.) ", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
WIDTH = 84  # characters of a line of code


def describe_object(name: str, of: Any, level: str = "") -> nodes.section:
    """A section about a class, a function or a value; a class has its public methods in it."""
    full = f"{level}{name}"
    section = nodes.section(ids=[nodes.make_id(full)], names=[full])
    section += nodes.title("", "", nodes.literal("", full))
    is_code = inspect.isclass(of) or callable(of)
    if is_code and (signature := find_signature(name, of)):
        section += make_code(signature)
    section += list(describe(inspect.getdoc(of) if is_code or isinstance(of, property) else None))
    if inspect.isclass(of):
        for key, member in vars(of).items():
            is_method = callable(member) or isinstance(member, property)
            if key[0] != "_" and is_method and member.__doc__:  # not one that is only inherited
                section += describe_object(key, member, f"{full}.")
    return section


def find_signature(name: str, of: Any) -> str | None:
    """A call with all arguments, and their types if they fit in a line."""
    try:
        signature = inspect.signature(of)
    except (ValueError, TypeError):
        return None
    arguments = [each for each in signature.parameters.values() if each.name != "self"]
    returned = signature.empty if inspect.isclass(of) else signature.return_annotation
    text = str(signature.replace(parameters=arguments, return_annotation=returned))
    short = name + re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).replace("'", "")
    if len(short) <= WIDTH and "<" not in short:
        return short
    parts = ", ".join(map(show_argument, arguments))
    return textwrap.fill(f"{name}({parts})", WIDTH, subsequent_indent="    ")


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
    entries = nodes.definition_list()
    for entry in filter(None, ENTRY.split(text)):
        name, _, meaning = entry.partition(": ")
        term, definition = nodes.term("", "", *make_inline(name)), make_text(meaning)
        entries += nodes.definition_list_item("", term, nodes.definition("", definition))
    yield entries


def make_text(text: str) -> nodes.paragraph:
    return nodes.paragraph("", "", *make_inline(" ".join(text.split())))


def make_inline(text: str) -> Iterator[nodes.Node]:
    """Text with code in backticks."""
    for n, part in enumerate(CODE.split(text)):
        if part:
            yield nodes.literal("", part) if n % 2 else nodes.Text(part)


def make_code(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="python")
