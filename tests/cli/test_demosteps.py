"""`demo --steps` shows all of FIG. 11, the tables as they were, and the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence

import pytest

from mirrortool.cli import demosteps
from mirrortool.cli.demosteps import Demonstration, DemoStep, text
from mirrortool.replay.tasktable import RowSnapshot
from tests.docs.manual import literal_lines, page
from tests.fakes.figure11 import NUMERALS, numerals_in_code, wrong_steps
from tests.fakes.switching import switching_often

COMMAND = [sys.executable, "-m", "mirrortool", "demo", "--steps"]
WIDTHS = pytest.mark.parametrize("width", [60, 80, 100])


@pytest.fixture(scope="module")
def steps() -> list[DemoStep]:
    return list(Demonstration().steps())


def passed(steps: Sequence[DemoStep]) -> dict[int, list[int]]:
    """By task."""
    numerals = defaultdict(list)
    for step in steps:
        for each in step.passages:
            numerals[each.task] += each.numerals
    return numerals


def test_every_numeral_of_the_figure_that_the_code_has_is_passed(steps: list[DemoStep]) -> None:
    everything = {numeral for numerals in passed(steps).values() for numeral in numerals}
    assert everything == numerals_in_code() < NUMERALS


def test_those_that_the_code_does_not_have_are_named() -> None:
    words = " ".join(list(text(200))[:3])
    named = {int(each) for each in re.findall(r"11\d\d", words)} | set(range(1102, 1112, 2))
    assert named - {1138} == NUMERALS - numerals_in_code()


def test_each_task_follows_the_figure(steps: list[DemoStep]) -> None:
    left_out = NUMERALS - numerals_in_code()
    wrong = {task: wrong_steps(numerals, left_out) for task, numerals in passed(steps).items()}
    assert wrong == {task: [] for task in range(5)}


def test_the_tables(steps: list[DemoStep]) -> None:
    """A claim, two delegations, a give-back, a bridge, a delegation to its waiter, posts, and an end."""
    b, c, e = demosteps.B, demosteps.C, demosteps.E
    waiting = (RowSnapshot(0, 0, 0, 2, 0), RowSnapshot(1, 0, 0, 2, 0), RowSnapshot(2, 0, 10, None, 2))
    assert [step.table for step in steps] == [
        (),
        (RowSnapshot(0, 0, 8, None, 0),),
        (RowSnapshot(0, 0, 8, None, 0, (b,)),),
        (RowSnapshot(0, 0, 10, None, 0, (b, c)),),
        (RowSnapshot(0, 0, 3, None, 0), RowSnapshot(1, 6, 10, None, 0)),
        waiting,
        (*waiting[:2], RowSnapshot(2, 0, 10, None, 2, (e,))),
        (RowSnapshot(1, 0, 0, 2, 0), RowSnapshot(2, 0, 10, None, 1, (e,))),
        (RowSnapshot(2, 0, 10, None, 0, (e,)),),
        (RowSnapshot(2, 8, 10, None, 0),),
        (),
    ]
    assert [step.work for step in steps[4:7]] == [{0: "B", 1: "C"}, {0: "B", 1: "C", 2: "D"}, {0: "B", 1: "C", 2: "D"}]


def test_a_table_is_printed_as_it_was() -> None:
    lines = list(text(80))
    start = lines.index(" 6. Unit E, pages 8-9, arrives")
    heading = next(number for number in range(start, len(lines)) if lines[number].startswith("    TASK"))
    assert [line.split() for line in lines[heading : heading + 5]] == [
        ["TASK", "PAGES", "UNIT", "MINI", "QUEUE", "COUNTER", "OF", "WAITS", "FOR"],
        ["0", "cleared", "B", "-", "task", "2", "-"],
        ["1", "cleared", "C", "-", "task", "2", "-"],
        ["2", "0-9", "D", "E", "-", "2", "tasks"],
        [],
    ]


def test_what_the_figure_does_not_have_is_marked(steps: list[DemoStep]) -> None:
    words = [each.words for step in steps for each in step.passages if not each.numerals]
    marked = [line.partition("not in FIG. 11  ")[2] for line in text(100) if "not in FIG. 11  " in line]
    assert marked == words
    assert len(words) == 3


def test_the_picture_shows_the_pages_of_each_unit() -> None:
    lines = list(text(80))
    picture = lines[lines.index("") + 1 :][: 1 + len(demosteps.FOOTPRINTS)]
    for line, (first, end) in zip(picture[1:], demosteps.FOOTPRINTS, strict=True):
        stars = {picture[0][at] for at, character in enumerate(line) if character == "*"}
        assert stars == set(map(str, range(first, end)))


def test_it_is_the_same_each_time_whatever_else_runs() -> None:
    expected = list(text(80))
    is_over = threading.Event()

    def be_busy() -> None:
        while not is_over.is_set():
            pass

    threads = [threading.Thread(target=be_busy, daemon=True) for _ in range(3)]
    with switching_often():
        for thread in threads:
            thread.start()
        try:
            assert all(list(text(80)) == expected for _ in range(10))
        finally:
            is_over.set()
    for thread in threads:
        thread.join()


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    list(text(80))
    assert threading.active_count() == before


@WIDTHS
def test_it_fits_the_terminal(width: int) -> None:
    assert max(map(len, text(width))) <= width


@WIDTHS
def test_folding_loses_nothing(width: int) -> None:
    assert " ".join(" ".join(text(width)).split()) == " ".join(" ".join(text(200)).split())


def test_the_counts_are_those_of_the_group() -> None:
    words = " ".join(text(200))
    assert "5 units written: 2 direct, 3 delegated to a mini queue, 1 waited for a counter, 1 given back" in words


def test_the_manual_shows_a_part_of_it() -> None:
    excerpt = list(literal_lines(page("mirrortool-demo").part("OUTPUT")))
    lines = list(text(80))
    start = lines.index(excerpt[0])
    assert len(excerpt) > 10
    assert lines[start : start + len(excerpt)] == excerpt


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)


def test_the_command_prints_it_into_a_pipe() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == list(text(80))


def test_quiet_prints_nothing() -> None:
    done = run("-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_error_in_a_task_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for a task that has ended."""

    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(demosteps.NumberedGroup, "_note_dequeued", fail)
    with pytest.raises(AssertionError, match="a bug"):
        list(text(80))
