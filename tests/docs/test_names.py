"""Texts name modules, files and methods that exist: comments and docstrings of the package, and the manual pages."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.record import journalside
from tests.docs.manual import ROOT, Page, literal_lines, page, pages

PACKAGE = ROOT / "mirrortool"
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
PACKAGES = {path.parent.name for path in SOURCES if path.name == "__init__.py"} - {"mirrortool", "importers"}
_SUFFIXES = ("json", "jsonl", "py", "prom", "service", "sock", "example", "svg", "log")
"""What follows a package's name in the name of a file or host."""
_FILE = re.compile(r"\b(?:\w+/)*\w+\.py\b")
_MODULE = re.compile(rf"(?<![-/@.\w])(?:{'|'.join(sorted(PACKAGES))})\.(?!(?:{'|'.join(_SUFFIXES)})\b)[a-z]\w*")
_METHOD = re.compile(r"\b([A-Z]\w+)\.(_?[a-z]\w*)\b")


@functools.cache  # not when the module is loaded: whoever runs other tests need not wait for it
def classes() -> dict[str, str]:
    """The text of each class of the package, by its name."""
    nodes = (node for source in SOURCES.values() for node in ast.walk(ast.parse(source)))
    return {node.name: ast.unparse(node) for node in nodes if isinstance(node, ast.ClassDef)}


def unknown_names(text: str) -> Iterator[str]:
    """The names of modules, files and methods in a text that lead nowhere."""
    for name in _FILE.findall(text):
        is_test = name.startswith("tests/") and (ROOT / name).exists()
        if not is_test and not any(str(path).endswith(f"/{name}") for path in SOURCES):
            yield name
    for name in _MODULE.findall(text):
        if name not in MODULES:
            yield name
    for class_name, name in _METHOD.findall(text):
        if class_name in classes() and not re.search(rf"\b{name}\b", classes()[class_name]):
            yield f"{class_name}.{name}"


def comments(source: str) -> Iterator[str]:
    """Comments and docstrings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or token.string.startswith('"""'):
            yield token.string


@pytest.mark.parametrize("text", ["see course/nowhere.py", "journal.nowhere", "JournalSide.nowhere"])
def test_a_name_that_leads_nowhere_is_found(text: str) -> None:
    assert list(unknown_names(f"so {text}, and more")) == [text.removeprefix("see ")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_comments_name_what_exists(path: Path) -> None:
    assert [name for text in comments(SOURCES[path]) for name in unknown_names(text)] == []


@pytest.mark.parametrize("manual", pages(), ids=lambda manual: f"{manual.name}.{manual.section}")
def test_pages_name_what_exists(manual: Page) -> None:
    assert list(unknown_names("\n".join(manual.lines))) == []


def test_the_map_has_every_module_once_and_its_job() -> None:
    rows = [re.split(r" {2,}", line) for line in literal_lines(page("mirrortool-design", 7).part("MODULES"))]
    names = [name for name, _ in rows]
    assert len(names) == len(set(names))
    assert set(names) == MODULES
    assert all(job for _, job in rows)


def locks(lines: list[str], indent: str) -> list[str]:
    """The locks that a table names, in its order."""
    return [match[1] for line in lines if (match := re.match(rf"{indent}([A-Z]\w+\.\w+)  ", line))]


def test_the_table_of_locks_is_that_of_the_code() -> None:
    """In the order in which they are taken; each is an attribute that its class makes."""
    table = locks((journalside.__doc__ or "").splitlines(), " {4}")
    assert len(table) >= 6
    assert locks(list(literal_lines(page("mirrortool-design", 7).sub_part("Locks"))), "") == table
    for name in table:
        class_name, attribute = name.split(".")
        assert f"self.{attribute} = threading." in classes()[class_name]
