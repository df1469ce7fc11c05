"""Every mutant of one module: each place where one of the usual operators changes what the code does.

What a user or a program could not tell apart has none: docstrings, texts of errors, annotations, `__repr__`,
decorators, assertions, and calls of metrics and traces.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tests.mutation.mutant import Edit, Module, Mutant

_OPPOSITE: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
_SILENT = re.compile(r"(^|[._])(trace|tracer|tracing|metrics?|logger|repr)\b")
_TEXTS = {"__repr__", "__str__", "describe"}
_EMPTY = {"list": "[]", "tuple": "()", "dict": "{}", "set": "set()", "Sequence": "()", "bytes": "b''"}
_ID_CHARACTERS = 100
"""Of an id, the changed source has this many at most, so that a line of a list can be read."""


def mutants(module: Module) -> Iterator[Mutant]:
    """All of a module, in the order of its source.

    An id is the module, the function, the operator and the source that it changes; `#2` and so on tell apart those that
    are equal in one function. So an edit of another function changes no id.
    """
    count: Counter[str] = Counter()
    for within, node, returns in _places(module.tree, "", ""):
        for operator, edit in _changes(module, node, returns):
            changed = node.test if isinstance(node, ast.If | ast.While | ast.IfExp) else node
            text = " ".join(ast.unparse(changed).split())
            cut = text if len(text) <= _ID_CHARACTERS else text[: _ID_CHARACTERS - 3] + "..."
            name = f"{module.path}:{within}: {operator}: {cut}"
            count[name] += 1
            yield Mutant(name + (f" #{count[name]}" if count[name] > 1 else ""), module.path, (edit,), ())


def _places(node: ast.AST, within: str, returns: str) -> Iterator[tuple[str, ast.AST, str]]:
    """Nodes that may be changed: each with its function, and the annotation of what that returns."""
    for child in _children(node):
        inside, annotation = within, returns
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name in _TEXTS:
                continue
            inside = f"{within}.{child.name}" if within else child.name
            if not isinstance(child, ast.ClassDef):
                annotation = ast.unparse(child.returns) if child.returns else ""
        yield within, child, returns
        yield from _places(child, inside, annotation)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Without texts, annotations and what only tells of the work."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr) or _is_silent(node):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list", "bases"):
            yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST))


def _is_silent(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and bool(_SILENT.search(ast.unparse(node.func)))


def _changes(module: Module, node: ast.AST, returns: str) -> Iterator[tuple[str, Edit]]:
    """The operators that fit a node: each one's name, and its edit."""
    match node:
        case ast.Compare(ops=[one]):
            yield "comparison", _between(module, node.left, node.comparators[0], _OPPOSITE[type(one)])
        case ast.BinOp() if type(node.op) in _OPPOSITE and not _is_text(node):
            yield "arithmetic", _between(module, node.left, node.right, _OPPOSITE[type(node.op)])
        case ast.BoolOp():
            yield "and/or", _between(module, node.values[0], node.values[1], _OPPOSITE[type(node.op)], node)
        case ast.UnaryOp(op=ast.Not()):
            yield "not dropped", module.replace(node, f"bool({module.source_of(node.operand)})")
        case ast.Constant(value=bool()):
            yield "constant", module.replace(node, str(not node.value))
        case ast.Constant(value=int()):
            yield "constant", module.replace(node, f"({node.value} + 1)")
            if node.value:
                yield "constant less", module.replace(node, f"({node.value} - 1)")
    if isinstance(node, ast.stmt):
        yield from _statement_changes(module, node, returns)
    elif isinstance(node, ast.IfExp):
        yield from _branch_changes(module, node.test)


def _statement_changes(module: Module, node: ast.stmt, returns: str) -> Iterator[tuple[str, Edit]]:
    match node:
        case ast.If():
            yield from _branch_changes(module, node.test)
        case ast.While() if not isinstance(node.test, ast.Constant):
            yield "never", module.replace(node.test, "False")
        case ast.Expr(value=ast.Call()) if not _is_silent(node.value):
            yield "deleted", module.replace(node, "pass")
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Delete():
            yield "deleted", module.replace(node, "pass")
        case ast.AugAssign(op=ast.Add() | ast.Sub()):
            yield "deleted", module.replace(node, "pass")
            sign = _OPPOSITE[type(node.op)] + "="
            yield "arithmetic", _between(module, node.target, node.value, sign)
        case ast.Raise():
            yield "raise dropped", module.replace(node, "pass")
        case ast.Break():
            yield "break", module.replace(node, "continue")
        case ast.Continue():
            yield "continue", module.replace(node, "break")
        case ast.Return(value=ast.expr()):
            value = _other_value(module.source_of(node.value), returns)
            if value != ast.unparse(node.value):
                yield "return", module.replace(node, f"return {value}")


def _branch_changes(module: Module, test: ast.expr) -> Iterator[tuple[str, Edit]]:
    source = module.source_of(test)
    if not isinstance(test, ast.UnaryOp | ast.Compare):  # `not` and a comparison are turned round already
        yield "not added", module.replace(test, f"(not ({source}))")
    yield "always", module.replace(test, "True")
    yield "never", module.replace(test, "False")


def _other_value(source: str, returns: str) -> str:
    if returns == "bool":
        return f"not ({source})"
    if returns in ("int", "float"):
        return f"({source}) + 1"
    kind = returns.split("[", maxsplit=1)[0]
    return _EMPTY.get(kind, "None")


def _between(module: Module, left: ast.expr, right: ast.expr, sign: str, whole: ast.expr | None = None) -> Edit:
    """The operator between two operands becomes another; for a chain of operands, all of them do.

    What is between has no names, so a comment is all that is lost.
    """
    if isinstance(whole, ast.BoolOp):
        values = [f"({module.source_of(each)})" for each in whole.values]
        return module.replace(whole, f"({f' {sign} '.join(values)})")
    first, second = module.replace(left, ""), module.replace(right, "")
    between = module.text[first.end : second.start]
    closing, opening = between.count(")"), between.count("(")
    return Edit(first.end, second.start, ")" * closing + f" {sign} " + "(" * opening)


def _is_text(node: ast.BinOp) -> bool:
    """Whether a sum or product is certainly one of texts or lists, so that its mutant is no program."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in sides
    )
