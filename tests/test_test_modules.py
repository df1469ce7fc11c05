"""No test module imports another: what several of them need has a module of its own, mostly in fakes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imported_tests(source: str) -> list[str]:
    """What a module of tests imports of a test module, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "tests." * bool(node.level) + (node.module or "")
            names += [f"{origin}.{each.name}" for each in node.names]
    return [name for name in names if re.match(r"tests\.(\w+\.)*test_\w+", name)]


def test_no_test_module_imports_another() -> None:
    found = {path: imported_tests(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
    assert len(found) > 100
    assert {str(path.relative_to(TESTS)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from tests.test_layers import MODULES", ["tests.test_layers.MODULES"]),
        ("from tests.ship import test_bases", ["tests.ship.test_bases"]),
        ("import tests.test_layers", ["tests.test_layers"]),
        ("def f():\n    from tests.ship.test_bases import x as y", ["tests.ship.test_bases.x"]),
        ("from .test_layers import MODULES", ["tests.test_layers.MODULES"]),
        ("from tests.fakes.journals import make_journal", []),
        ("from pytest import test_layers", []),
    ],
)
def test_the_rule_finds_an_import_of_a_test(source: str, names: list[str]) -> None:
    assert imported_tests(source) == names
