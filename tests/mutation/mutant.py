"""A mutant: the same source with one place changed, and how places are named, so that names stay when lines move."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The tree with the package and its tests."""


@dataclass(frozen=True)
class Edit:
    """Characters of a source from `start` to before `end` become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Mutant:
    """One change of the package's source.

    Attributes:
        id: names it, and stays when lines move.
        path: of the module, from the root, such as "mirrortool/files.py".
        tests: what finds it: ids of tests, modules or folders of tests, as pytest reads them.
        argument: why nothing needs to find it; "" where something must.
    """

    id: str
    path: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    argument: str = ""

    def source(self) -> str:
        """The module as the mutant has it."""
        text = module(self.path).text  # not anew: the edits are of that one
        for edit in sorted(self.edits, key=lambda each: each.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        ast.parse(text, self.path)
        return text

    def lines(self) -> str:
        """Where it is now: path and lines."""
        text = module(self.path).text
        return f"{self.path}:" + ",".join(str(text.count("\n", 0, edit.start) + 1) for edit in self.edits)


class Module:
    """The source of one module, its tree, and where each node lies."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, path)
        lines = self.text.encode().splitlines(keepends=True)
        self._lines, self._starts = lines, [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line.decode()))

    def offset(self, line: int, column: int) -> int:
        """In characters, of a line (from 1) and a column in bytes, as `ast` counts."""
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def replace(self, node: ast.expr | ast.stmt, text: str) -> Edit:
        """The node's source becomes this text."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)
        return Edit(start, end, text)

    def source_of(self, node: ast.expr | ast.stmt) -> str:
        edit = self.replace(node, "")
        return self.text[edit.start : edit.end]

    def named(self) -> Iterator[tuple[str, ast.AST]]:
        """Each node with the qualified name of the function or class that it is in, in the order of the source."""
        yield from _named(self.tree, "")

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Each call with its name: `function:callee`, with `:2` and so on where a function has several."""
        count: Counter[str] = Counter()
        for within, node in self.named():
            if isinstance(node, ast.Call):
                name = f"{within}:{ast.unparse(node.func)}"
                count[name] += 1
                yield name + (f":{count[name]}" if count[name] > 1 else ""), node


def _named(node: ast.AST, within: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        inside = within
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{within}.{child.name}" if within else child.name
        yield within, child
        yield from _named(child, inside)


@cache
def module(path: str) -> Module:
    """Of this path from the root, read once."""
    return Module(path)


def modules() -> list[Module]:
    """All of the package."""
    return [module(str(path.relative_to(ROOT))) for path in sorted((ROOT / "mirrortool").rglob("*.py"))]
