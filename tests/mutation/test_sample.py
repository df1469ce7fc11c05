"""The sample of mutants is chosen alike each time; what is noted of it names tests that are there."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutation import __main__ as command
from tests.mutation import operators, sample
from tests.mutation.mutant import ROOT, Module, Mutant


def mutants(tmp_path: Path, source: str) -> list[Mutant]:
    """Of a module with this source."""
    path = tmp_path / "module.py"
    path.write_text(source)
    return list(operators.mutants(Module(str(path))))


def changed(tmp_path: Path, source: str) -> list[str]:
    return [each.source() for each in mutants(tmp_path, source)]


def test_each_mutant_of_the_sample_is_found_or_argued_for() -> None:
    found, argued = sample.load(sample.FOUND), sample.load(sample.ARGUED)
    assert not found.keys() & argued.keys()
    assert len(found) + len(argued) == sample.COUNT
    assert len(found) >= 0.9 * sample.COUNT
    assert all(len(argument) > 20 for argument in argued.values())


@pytest.mark.parametrize("path", [sample.FOUND, sample.ARGUED], ids=lambda path: path.name)
def test_what_is_noted_is_sorted_a_line_each(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines, key=lambda line: line.split("\t")[0])
    assert len({line.split("\t")[0] for line in lines}) == len(lines)


def test_each_test_that_found_a_mutant_is_there() -> None:
    missing = []
    for test in sorted(set(sample.load(sample.FOUND).values())):
        path, _, function = test.partition("::")
        known = {each.name for each in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(each, "name")}
        if function and not set(function.split("[")[0].split("::")) <= known:
            missing.append(test)
    assert missing == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = (a) in (b)", ["x = (a) not in (b)"]),
        ("x = a < b < c", []),
        ("x = a - b", ["x = a + b"]),
        ("x = f'{a}' + b", []),
        ("x = 'a'", []),
        ("x = 3", ["x = (3 + 1)", "x = (3 - 1)"]),
        ("x = True", ["x = False"]),
        ("x = not a", ["x = bool(a)"]),
        ("x = a and b and c", ["x = ((a) or (b) or (c))"]),
        ("x += a", ["pass", "x -= a"]),
        ("a.x = b", ["pass"]),
        ("x = a", []),
        ("f(a)", ["pass"]),
        ("if a:\n    x = b", ["if (not (a)):\n    x = b", "if True:\n    x = b", "if False:\n    x = b"]),
        ("while True:\n    break", ["while False:\n    break", "while True:\n    continue"]),
        ("def f() -> bool:\n    return a", ["def f() -> bool:\n    return not (a)"]),
        ("def f() -> int:\n    return a", ["def f() -> int:\n    return (a) + 1"]),
        ("def f() -> list[int]:\n    return a", ["def f() -> list[int]:\n    return []"]),
        ("raise Error(f'{a + b} of {3}')", ["pass"]),
        ("'''A text.'''", []),
        ("def f(x: int | None) -> Literal[3]: ...", []),
        ("@dataclass(frozen=True)\nclass A:\n    x: Literal[3]", []),
        ("assert a < b", []),
        ("self._trace(a + b)", []),
        ("metrics.count(1)", []),
        ("class A:\n    def __repr__(self):\n        return a + b", []),
    ],
)
def test_a_place_has_these_mutants(tmp_path: Path, source: str, expected: list[str]) -> None:
    assert changed(tmp_path, source) == expected


def test_an_edit_of_one_function_keeps_the_ids_of_the_others(tmp_path: Path) -> None:
    source = "def f():\n    g(1)\n\n\ndef h():\n    g(1)\n    g(1)\n"
    before = {each.id for each in mutants(tmp_path, source)}
    after = {each.id for each in mutants(tmp_path, source.replace("g(1)", "g(2, a < b)", 1))}
    ids = {each for each in before if ":h:" in each}
    assert ids == {each for each in after if ":h:" in each}
    assert any(each.endswith(" #2") for each in ids)


def test_a_mutant_that_is_gone_leaves_the_others_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [Mutant(f"{number}", "mirrortool/verify.py", (), ()) for number in range(1000)]
    monkeypatch.setattr(sample, "candidates", lambda: before)
    first = sample.chosen()
    monkeypatch.setattr(sample, "candidates", lambda: [each for each in before if each != first[0]])
    assert set(first) - set(sample.chosen()) == {first[0]}


@pytest.fixture
def one_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mutant:
    """The sample is one mutant, of which nothing is known."""
    mutant = Mutant("mirrortool/verify.py:f: new", "mirrortool/verify.py", (), ())
    monkeypatch.setattr(sample, "candidates", lambda: [mutant])
    monkeypatch.setattr(sample, "FOUND", tmp_path / "found.tsv")
    monkeypatch.setattr(sample, "ARGUED", tmp_path / "survivors.tsv")
    return mutant


class NoWorkshop:
    """For a command that has no mutant to run."""

    root = ROOT

    def require_passing(self, tests: Sequence[str]) -> None:
        pass


@pytest.mark.usefixtures("one_chosen")
def test_the_command_names_what_is_gone_and_what_is_new(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.FOUND.write_text("mirrortool/verify.py:f: gone\ttests/test_verify.py::test_x\n")
    monkeypatch.setattr(command, "workshop", lambda: contextlib.nullcontext(NoWorkshop()))
    assert command.main(["sample"]) == 1
    output = capsys.readouterr().out
    assert "gone: mirrortool/verify.py:f: gone" in output
    assert "new: mirrortool/verify.py:f: new" in output


def test_a_search_notes_the_test_and_forgets_what_is_gone(one_chosen: Mutant) -> None:
    sample.FOUND.write_text("mirrortool/verify.py:f: gone\ttests/test_verify.py::test_x\n")
    sample.save({one_chosen.id: "tests/test_verify.py::test_y"})
    assert sample.load(sample.FOUND) == {one_chosen.id: "tests/test_verify.py::test_y"}


def test_the_tests_of_the_module_come_first(one_chosen: Mutant) -> None:
    path = "mirrortool/journal/copies/copy.py"
    stages = list(sample.stages(replace(one_chosen, id=f"{path}:f: new", path=path)))
    assert stages[0][:2] == ["tests/journal/copies/test_copy.py", "tests/journal/copies/test_copy_power.py"]
    tests = [each for stage in stages for each in stage]
    assert len(tests) == len(set(tests))
    assert all((ROOT / each).is_file() for each in tests)
