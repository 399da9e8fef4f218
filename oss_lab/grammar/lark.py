"""Checks of a Lark grammar before llguidance reads it: tokens instead of text, and endless rules.

llguidance lets a grammar name tokens by their ids. It also accepts `start: "a" start`, whose texts
begin well but are never complete. The checks read only the outline of a grammar. A group in
brackets counts as complete, so a rule that is endless only inside a group passes.
"""

import re

from oss_lab.errors import LabError

_LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"i?|/(?:\\.|[^/\\\n])+/[imslux]*')
_COMMENT = re.compile(r"//[^\n]*|^\s*#[^\n]*", re.MULTILINE)
_TOKEN = re.compile(r"<[\[|][^>]*>?")
_MAY_BE_EMPTY = re.compile(r"\{\s*0?\s*(,\s*\d*\s*)?\}|~\s*0\b(\s*\.\.\s*\d+)?")
_GROUP = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
_RULE = re.compile(r"^\s*[?!]?([A-Za-z_]\w*)(?:\"\")?(?:\.-?\d+)?\s*:", re.MULTILINE)
_NAME = re.compile(r"(?<![\w%@])([a-z_]\w*)\s*([?*])?")


def check_lark(grammar: str) -> None:
    """Check that a grammar describes complete texts.

    Raises:
        LabError: it names a token, allows bytes that are not UTF-8, or no text of it is complete.
    """
    if "allow_invalid_utf8" in grammar:
        raise LabError("the Lark grammar allows bytes that are not UTF-8; leave that option out")
    bare = _COMMENT.sub("", _LITERAL.sub('""', grammar))
    if found := _TOKEN.search(bare):
        raise LabError(
            f"the Lark grammar names the token {found[0]}, and an answer consists of text; write"
            " it as a string"
        )
    endless = find_endless_rules(bare)
    if "start" in endless:
        rule = min(endless - {"start"}, default="start")
        raise LabError(
            f"no text of the Lark grammar is complete, since the rule {rule!r} requires itself;"
            " give it an alternative without itself"
        )


def find_endless_rules(bare: str) -> set[str]:
    """The rules of a grammar without literals that every alternative leads to itself."""
    text = re.sub(r"^\s*%[^\n]*", "", _MAY_BE_EMPTY.sub("*", bare), flags=re.MULTILINE)
    while text != (shorter := _GROUP.sub('""', text)):
        text = shorter
    _, *pairs = _RULE.split(text)
    rules = {
        name: [_list_required(each) for each in body.split("|")]
        for name, body in zip(pairs[::2], pairs[1::2], strict=True)
    }
    endless = set(rules)
    while ended := {name for name in endless if any(not each & endless for each in rules[name])}:
        endless -= ended
    return endless


def _list_required(alternative: str) -> set[str]:
    """The rules that an alternative cannot do without."""
    return {name for name, optional in _NAME.findall(alternative) if not optional}
