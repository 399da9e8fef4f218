"""Structured output: replies that follow a grammar, token by token.

response_format.py   what an answer must look like: a pydantic class, a JSON schema, Regex, Lark
schema.py            a JSON schema as a grammar, and the schemas that are refused
finite.py            whether a finite value fits a schema
numbers.py           multiples and bounds in a schema
lark.py              the Lark grammars that are refused
harmony_grammar.py   Harmony's own state machine as a grammar
matcher.py           a position in a grammar, over a vocabulary (llguidance)
constraint.py        the constraint of one reply, which the engine asks for its masks
replies.py           the constraint of the replies to a prompt

    lab.chat("Where is Berlin?", response_format={"type": "object", "properties": {...}})
    lab.chat("Yes or no?", response_format=Regex("yes|no"))
    lab.chat("What is 347 * 62?", temperature=1.5, well_formed=True)
"""

from oss_lab.grammar.constraint import ReplyConstraint
from oss_lab.grammar.harmony_grammar import write_harmony_grammar
from oss_lab.grammar.replies import build_constraint
from oss_lab.grammar.response_format import Lark, Regex, ResponseForm

__all__ = [
    "Lark",
    "Regex",
    "ReplyConstraint",
    "ResponseForm",
    "build_constraint",
    "write_harmony_grammar",
]
