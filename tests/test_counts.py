"""No text says "1 files": a count before a plural is written by `wording.counted`, or is a constant."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.wording import byte_count
from tests.docs.manual import ROOT

SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "mirrortool").rglob("*.py"))}
_OTHERS = {"bytes", "clients", "commits", "days", "destinations", "members", "options", "requests", "runs", "threads"}
"""Plurals that may be counted, besides those that the package gives to `counted` now."""


@functools.cache
def plurals() -> set[str]:
    """The last words of what the package counts."""
    calls = (node for source in SOURCES.values() for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    things = (
        each.args[1].value
        for each in calls
        if isinstance(each.func, ast.Name) and each.func.id == "counted" and isinstance(each.args[1], ast.Constant)
    )
    return _OTHERS | {f"{str(thing).split()[-1].lower()}s" for thing in things}


def is_constant(expression: ast.expr) -> bool:
    """Whether all that it is made of is written in capitals."""
    parts = list(ast.walk(expression))
    attributes = [each.attr for each in parts if isinstance(each, ast.Attribute)]
    names = [each.id for each in parts if isinstance(each, ast.Name)]
    return all(map(str.isupper, names)) or (bool(attributes) and all(map(str.isupper, attributes)))


def counts(source: str, nouns: set[str]) -> Iterator[str]:
    """What is put before a plural in the f-strings of a source."""
    noun = re.compile(rf" (?:more |bad )?(?:{'|'.join(sorted(nouns))})\b(?!/)")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(after, ast.Constant)
                and noun.match(str(after.value))
                and not is_constant(value.value)
            ):
                yield f"line {node.lineno}: {ast.unparse(value.value)}{after.value}"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('f"{n} writes"', True),
        ('f"has {len(pages)} bad pages, and"', True),
        ('f"{now.operations} operations of 5"', True),
        ('f"{now.rate:.0f} operations/s"', False),
        ('f"at most {nbd.OPTIONS_MAX} options"', False),
        ('f"{2 * _ROUNDS} more times"', False),
        ("f\"{counted(n, 'write')} written\"", False),
        ('f"{name} is of files"', False),
    ],
)
def test_a_count_before_a_plural_is_found(text: str, *, is_found: bool) -> None:
    assert bool(list(counts(text, {"writes", "pages", "operations", "times", "files", "options"}))) == is_found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_count_stands_before_a_plural(path: Path) -> None:
    found = list(counts(SOURCES[path], plurals()))
    assert not found, "write it with wording.counted, or wording.byte_count"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        ((1 << 20) - 1, "1048575 bytes"),
        (1 << 20, "1.0 MiB (1048576 bytes)"),
        (1 << 30, "1.0 GiB (1073741824 bytes)"),
        ((1 << 30) + 1, "1.0 GiB (1073741825 bytes)"),
    ],
)
def test_bytes_have_all_digits_and_large_numbers_a_size(count: int, text: str) -> None:
    assert byte_count(count) == text
