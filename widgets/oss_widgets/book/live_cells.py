"""Which live views a cell of a notebook shows, found by reading its code without running it.

A view becomes live if everything that it was made from is written in the notebook: nano loaded by
name, a question and settings as plain values. A view of the reader's own model or array stays a
stored copy, and the reader of the cells says why.
"""

import ast
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT
from oss_widgets import views
from oss_widgets.book.live_view import LiveView

CLASSES = {name: getattr(views, name) for name in views.__all__}
PLAIN_SETTINGS = {"instructions", "history", "toolOutputs", "maxTokens"}


class Nano:
    """The value of a variable: nano, unchanged."""


@dataclass(frozen=True)
class Asked:
    """The value of a variable: nano's reply to a question."""

    request: dict[str, Any]


class NotLiveError(Exception):
    """Why something in a cell cannot become a live view."""


class CellReader:
    """Reads the cells of one notebook in order."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources = 0

    def read(self, code: str) -> list[LiveView]:
        """The views that a cell shows: its last expression, or what it gives to `display`.

        Raises:
            NotLiveError: one of them cannot become a live view.
        """
        try:
            body = ast.parse(code).body
        except SyntaxError:
            raise NotLiveError("the cell has notebook commands") from None
        shown: list[Any] = []
        for statement in body:
            match statement:
                case ast.Expr(ast.Call(ast.Name("display"), args)):
                    shown += map(self.find_value, args)
                case ast.Expr(value) if statement is body[-1]:
                    shown.append(self.find_value(value))
                case _:
                    self.run(statement)
        if not shown or not all(isinstance(each, LiveView) for each in shown):
            raise NotLiveError("it shows something that is not a view")
        return shown

    def skip(self, code: str) -> None:
        """Remember the variables of a cell that shows no view."""
        with suppress(NotLiveError):
            self.read(code)

    def run(self, statement: ast.stmt) -> None:
        """Remember what a statement assigns; what is not understood is forgotten."""
        if assigned := find_assigned(statement):
            found = [self.try_value(value) for value in assigned.values()]
            self.values.update(zip(assigned, found, strict=True))
            return
        match statement:
            case ast.Assign(targets=[ast.Attribute(ast.Name(id=name), "selection")], value=value):
                view = self.values.get(name)
                if isinstance(view, LiveView):
                    self.values[name] = replace(view, selection=read_plain(value))
            case _:
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        self.values[node.id] = NotLiveError(f"{node.id} is computed")

    def try_value(self, node: ast.expr) -> Any:
        """The value as in `find_value`, or the reason why it is something else."""
        try:
            return self.find_value(node)
        except NotLiveError as reason:
            return reason

    def find_value(self, node: ast.expr) -> Any:
        """A plain value, Nano, Asked or a LiveView.

        Raises:
            NotLiveError: it is something else.
        """
        match node:
            case ast.Name(id=name):
                found = self.values.get(name, NotLiveError(f"{name} is computed"))
                if isinstance(found, NotLiveError):
                    raise found
                return found
            case ast.Call(ast.Name(id=name) | ast.Attribute(attr=name)) if name in CLASSES:
                return self.make_view(name, *self.find_arguments(node))
            case ast.Call(
                ast.Name("load") | ast.Attribute(attr="load"), [ast.Constant("nano"), *_]
            ):
                return Nano()
            case ast.Call(ast.Attribute(of, "chat")) if isinstance(self.find_value(of), Nano):
                return Asked(make_request(*self.find_arguments(node)))
        return read_plain(node)

    def find_arguments(self, call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        given = {word.arg or "**": self.find_value(word.value) for word in call.keywords}
        return [self.find_value(each) for each in call.args], given

    def make_view(self, name: str, args: list[Any], keywords: dict[str, Any]) -> LiveView:
        """The live view of a call such as `Chat(lab, "What is 7 * 8?")` or `Experts(chat)`."""
        bound = inspect.signature(CLASSES[name]).bind(*args, **keywords).arguments
        of, lab, view = bound.pop("of"), bound.pop("lab", None), CLASSES[name].NAME
        settings = {**bound.pop("settings", {}), **bound}
        if isinstance(of, LiveView):
            return replace(of, view=view)
        self.sources += 1
        source = f"source-{self.sources}"
        if isinstance(of, Asked) and isinstance(lab, Nano):
            return LiveView(view, source, of.request)
        if not isinstance(of, Nano):
            raise NotLiveError("it shows an array, not nano")
        question = settings.pop("question", None) or ""
        is_asked = settings.pop("ask", True)
        return LiveView(view, source, make_request([question if is_asked else ""], settings))


def find_assigned(statement: ast.stmt) -> dict[str, ast.expr]:
    """The value of each name in `a = 1` or `a, b = 1, 2`; empty for other statements."""
    match statement:
        case ast.Assign([ast.Name(id=name)], value):
            return {name: value}
        case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)) if len(targets) == len(values):
            names = [each.id for each in targets if isinstance(each, ast.Name)]
            return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}
    return {}


def make_request(args: list[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A Request of `js/source/source.js`.

    Raises:
        NotLiveError: it has a setting that the page does not read, or is not one question.
    """
    settings = {"maxTokens" if key == "max_tokens" else key: x for key, x in settings.items()}
    effort = settings.pop("effort", None) or DEFAULT_EFFORT["nano"]
    if unknown := settings.keys() - PLAIN_SETTINGS:
        raise NotLiveError(f"the book has no {min(unknown)}")
    if len(args) != 1 or not isinstance(args[0], str):
        raise NotLiveError("it is not one question")
    return {"question": args[0], "effort": effort, **settings}


def read_plain(node: ast.expr) -> Any:
    """A value that is written out.

    Raises:
        NotLiveError: it is not.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise NotLiveError(f"{ast.unparse(node)[:60]} is computed") from None
