"""Small faults that a test should notice: every mutant of a module, by replacing one node of its syntax tree."""

from __future__ import annotations

import ast
import copy
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_PAIRS = (
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("floor", "ceil"),
    ("all", "any"),
    ("isnan", "isinf"),
    ("zeros_like", "ones_like"),
)
_SWAPPED = dict(_PAIRS) | {second: first for first, second in _PAIRS}
_UNWRAPPED = {"abs", "clamp", "square", "sqrt", "exp", "log", "sort", "flip", "cumsum", "sign", "nan_to_num", "double"}
_REMOVED = (ast.Raise, ast.Break, ast.Continue, ast.AugAssign, ast.Expr)
_LEFT_ALONE = (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)


@dataclass(frozen=True)
class Mutant:
    """One fault in one module.

    Attributes:
        path: the module's file, relative to the repository.
        line: where, from 1.
        operator: the kind of fault.
        name: the same for the same source: file, line, column, operator, running number.
        number: of the node, in the order of ``ast.walk``.
        replacement: what stands in the node's place.
    """

    path: str
    line: int
    operator: str
    name: str
    number: int
    replacement: ast.AST

    def tree(self, source: str) -> ast.Module:
        """The faulty module."""
        tree = ast.parse(source)
        node = list(ast.walk(tree))[self.number]
        _Replace(node, copy.deepcopy(self.replacement)).visit(tree)
        return ast.fix_missing_locations(tree)

    def difference(self, source: str) -> str:
        """The lines that differ, as a diff without context; both sides as ``ast.unparse`` writes them."""
        before, after = (ast.unparse(tree).splitlines() for tree in (ast.parse(source), self.tree(source)))
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


class _Replace(ast.NodeTransformer):
    def __init__(self, node: ast.AST, replacement: ast.AST) -> None:
        self.node, self.replacement = node, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self.replacement if node is self.node else self.generic_visit(node)


def mutants(path: Path, source: str, only: Sequence[str] = ()) -> list[Mutant]:
    """Every mutant of a module.

    Docstrings, annotations, decorators, imports, ``__repr__`` and what is raised (the message) are left alone.

    Args:
        path: the file, relative to the repository.
        source: its text.
        only: names of functions and of constants at the module's top; all where empty.
    """
    tree = ast.parse(source)
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for node in _reached(tree, only):
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
        for operator, variant in _variants(node):
            kind = f"{path.stem}:{line}:{column}:{operator}"
            seen[kind] += 1
            found.append(Mutant(str(path), line, operator, f"{kind}:{seen[kind]}", numbers[id(node)], variant))
    return found


def _reached(tree: ast.Module, only: Sequence[str]) -> Iterator[ast.AST]:
    """The nodes that may change, those of defaults marked."""
    left = _left_alone(tree)
    roots: list[ast.AST] = [tree]
    if only:
        roots = [
            node
            for node in ast.walk(tree)
            if (isinstance(node, ast.FunctionDef) and node.name in only)
            or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in only)
        ]
    while roots:
        node = roots.pop(0)
        if id(node) in left:
            continue
        yield node
        roots = [*ast.iter_child_nodes(node), *roots]


def _left_alone(tree: ast.Module) -> set[int]:
    left: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _LEFT_ALONE) or (isinstance(node, ast.FunctionDef) and node.name == "__repr__"):
            left.add(id(node))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            left |= {id(decorator) for decorator in node.decorator_list}
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            left.add(id(node.returns))
        if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
            left.add(id(node.annotation))
        if isinstance(node, ast.Raise) and node.exc is not None:
            left.add(id(node.exc))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # docstrings and ``...``
            left.add(id(node))
    return left


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.stmt):
        yield from _statements(node)
    elif isinstance(node, (ast.BinOp, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.IfExp)):
        yield from _operations(node)
    elif isinstance(node, ast.Constant):
        yield from (("constant", ast.Constant(value)) for value in _other_values(node.value))
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.comprehension) and node.ifs:
        ifs: list[ast.expr] = [ast.UnaryOp(ast.Not(), node.ifs[0]), *node.ifs[1:]]
        yield "negation", ast.comprehension(node.target, node.iter, ifs, node.is_async)
    elif isinstance(node, ast.arguments):
        yield from _defaults(node)


def _operations(node: ast.BinOp | ast.Compare | ast.BoolOp | ast.UnaryOp | ast.IfExp) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.BinOp):
        if type(node.op) in _ARITHMETIC:
            yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                yield "comparison", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "and/or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield ("dropped not" if isinstance(node.op, ast.Not) else "sign"), node.operand
    else:
        yield "branches", ast.IfExp(node.test, node.orelse, node.body)


def _statements(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, (ast.If, ast.While)):
        other = copy.copy(node)
        other.test = ast.UnaryOp(ast.Not(), node.test)
        yield "negation", other
    elif isinstance(node, _REMOVED) or (
        isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
    ):
        yield "removed", ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "removed", ast.Return(ast.Constant(None))
        if isinstance(node.value, ast.BinOp):
            yield "sign", ast.Return(ast.UnaryOp(ast.USub(), node.value))


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in _SWAPPED:
        other: ast.expr = (
            ast.Attribute(function.value, _SWAPPED[name], function.ctx)
            if isinstance(function, ast.Attribute)
            else ast.Name(_SWAPPED[name], ast.Load())
        )
        yield "min/max", ast.Call(other, node.args, node.keywords)
    if isinstance(function, ast.Attribute) and name in _UNWRAPPED and not _is_module(function.value):
        yield "unwrapped", function.value
    if name == "where" and len(node.args) == 3:
        yield "branches", ast.Call(function, [node.args[0], node.args[2], node.args[1]], node.keywords)
    if name == "clamp" and [keyword.arg for keyword in node.keywords] in (["min"], ["max"]):
        bound = ast.keyword("max" if node.keywords[0].arg == "min" else "min", node.keywords[0].value)
        yield "min/max", ast.Call(function, node.args, [bound])


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"torch", "math"}


def _defaults(node: ast.arguments) -> Iterator[tuple[str, ast.AST]]:
    """A default of ``None`` has no neighbour; numbers and booleans are constants of their own."""
    for place, default in enumerate(node.kw_defaults):
        if isinstance(default, ast.Constant) and isinstance(default.value, str):
            other = copy.copy(node)
            other.kw_defaults = [*node.kw_defaults]
            other.kw_defaults[place] = ast.Constant(default.value + "x")
            yield "default", other


def _other_values(value: object) -> Iterator[bool | int | float]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
        if value:
            yield value * 2
            yield type(value)(0)
