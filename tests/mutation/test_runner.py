"""Mutants are found where a test fails, hangs or cannot be run; the tree itself stays as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mutation import __main__ as command
from tests.mutation.mutant import Mutant, module
from tests.mutation.runner import NoTestsError, Workshop, _result, workshop

STREAMS = "tests/cli/test_process.py::test_streams_that_nobody_reads"


@pytest.fixture(scope="module")
def place() -> Iterator[Workshop]:
    with workshop() as made:
        yield made


def mutant(path: str, name: str, text: str, *tests: str) -> Mutant:
    """Of a call, by its name."""
    (call,) = [each for known, each in module(path).calls() if known == name]
    return Mutant(name, path, (module(path).replace(call, text),), tests)


def test_a_program_that_a_test_starts_is_the_mutant(place: Workshop) -> None:
    ends = mutant("mirrortool/__main__.py", "run:main.run", "sys.exit(77)", STREAMS)
    found = place.run(ends)
    assert found.outcome == "found" and found.test.startswith(STREAMS), found


def test_nothing_is_changed_once_a_mutant_was_run(place: Workshop) -> None:
    tests = ("tests/test_jsonfile.py",)
    fails = mutant("mirrortool/jsonfile.py", "save:files.replace_small", "None", *tests)
    assert place.run(fails).is_found
    path = "mirrortool/jsonfile.py"
    assert place.run(Mutant("the same", path, (), tests)).outcome == "survived"
    assert (place.root / path).read_text() == module(path).text


@pytest.mark.parametrize(
    ("code", "text", "outcome", "test"),
    [
        (0, "tests/a.py::b PASSED", "survived", ""),
        (1, "tests/a.py::a PASSED [ 5%]\ntests/a.py::b[c d] FAILED [ 9%]", "found", "tests/a.py::b[c d]"),
        (2, "collecting ...\nERROR tests/a.py - ImportError", "found", "tests/a.py"),
        (4, "ImportError while loading conftest '/x/tests/conftest.py'", "found", "tests/conftest.py"),
        (1, "tests/a.py::a PASSED [ 5%]\ntests/a.py::b \n++++ Timeout ++++", "hang", "tests/a.py::b"),
        (1, "tests/a.py::b FAILED\nFAILED tests/a.py::b - Failed: Timeout (>60s)", "hang", "tests/a.py::b"),
        (None, "tests/a.py::a PASSED\ntests/a.py::b ", "hang", "tests/a.py::b"),
    ],
)
def test_what_became_of_a_mutant_is_read_from_what_pytest_says(code: int, text: str, outcome: str, test: str) -> None:
    found = _result(code, text, 1)
    assert (found.outcome, found.test) == (outcome, test)


@pytest.mark.parametrize("code", [3, 4, 5])
def test_a_run_without_tests_says_nothing_of_a_mutant(code: int) -> None:
    with pytest.raises(NoTestsError):
        _result(code, "no tests ran", 1)


def test_tests_that_fail_without_a_mutant_are_no_witnesses(place: Workshop) -> None:
    failing = place.root / "tests/test_failing.py"
    failing.write_text("def test_fails(): assert 0")
    with pytest.raises(NoTestsError, match="without a mutant"):
        place.require_passing(["tests/test_failing.py"])


def test_places_are_named_without_lines() -> None:
    names = [name for name, _ in module("mirrortool/files.py").calls()]
    assert "rename:sync_name" in names and "rename:sync_name:2" in names
    assert len(set(names)) == len(names)


def test_the_command_has_only_lists_that_are_there() -> None:
    for name in command.LISTS:
        assert command.main([name, "--list", "-k", "no such mutant"]) == 0
