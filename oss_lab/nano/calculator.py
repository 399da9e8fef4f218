"""The calculator that nano can call: `+`, `-`, `*` and `/` on whole numbers, exactly.

nano calls it with {"expression":"4815*884"}; CALCULATOR_TOOL in `tasks/settings.py` is how it is
declared. The page has the same tool in `js/nano/calculator.js`.
"""

import ast
import json
import operator
from collections.abc import Callable

from oss_lab.errors import LabError, shorten

OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
LONGEST = 200  # characters of an expression


def run_calculator(arguments: str) -> str:
    """The output of a call, from its arguments as text.

    >>> run_calculator('{"expression":"2 * (3 - 5)"}')
    '-4'

    Raises:
        LabError: there is no expression, or it cannot be calculated.
    """
    try:
        expression = json.loads(arguments)["expression"]
    except (ValueError, KeyError, TypeError):
        expression = None
    if not isinstance(expression, str):
        raise LabError(f'the arguments {shorten(arguments, 60)} have no text "expression"')
    return calculate(expression)


def calculate(expression: str) -> str:
    """The value of an expression, as text.

    >>> calculate("4815*884")
    '4256460'

    Raises:
        LabError: it is not such an expression, or has no whole result.
    """
    if len(expression) > LONGEST:
        raise LabError(f"the expression has {len(expression)} characters; give at most {LONGEST}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise LabError(f"cannot read the expression {expression!r}") from None
    return str(evaluate(tree.body))


def evaluate(node: ast.expr) -> int:
    """The value of a part of an expression."""
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return divide(evaluate(left), evaluate(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](evaluate(left), evaluate(right))
    raise LabError(f"cannot calculate {ast.unparse(node)!r}; use whole numbers, +, -, * and /")


def divide(value: int, divisor: int) -> int:
    """The quotient.

    Raises:
        LabError: it is not a whole number.
    """
    if divisor == 0:
        raise LabError(f"{value}/0 is not defined")
    if value % divisor:
        raise LabError(f"{value}/{divisor} is not a whole number")
    return value // divisor
