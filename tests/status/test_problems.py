"""Of several problems the worst is the exit code of status, in the order that status(1) gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mirrortool import errors
from mirrortool.errors import MirrortoolError
from mirrortool.status import worst

MANUAL = Path(__file__).parents[2] / "man/man1/mirrortool-status.1"


class Problem(MirrortoolError):
    def __init__(self, exit_code: int) -> None:
        super().__init__(f"problem {exit_code}")
        self.exit_code = exit_code


def every_code() -> list[int]:
    """Each that the program has, and 1, which is a mirror that is known to be bad."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MirrortoolError)]
    return sorted({1, *(each.exit_code for each in classes)})


def documented_ranks() -> dict[int, int]:
    """The place of each exit code in the list of status(1)."""
    part = MANUAL.read_text().partition(".Sh EXIT STATUS")[2].partition(".Ed")[0]
    lines = part.partition(".Bd -literal -offset indent\n")[2].splitlines()
    assert lines[-1] == "any other"
    ranks = dict.fromkeys(every_code(), len(lines))
    for rank, line in enumerate(lines[:-1]):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", line.partition("  ")[0]):
            ranks |= dict.fromkeys(range(int(first), int(last or first) + 1), rank)
    return ranks


@pytest.mark.parametrize("one", every_code())
def test_of_two_the_worse_one_counts(one: int) -> None:
    ranks = documented_ranks()
    for other in every_code():
        found = worst([Problem(one), Problem(other)])
        assert found is not None
        assert found.exit_code == (one if ranks[one] <= ranks[other] else other), other


def test_the_order_is_the_one_that_was_agreed() -> None:
    ranks = documented_ranks()
    order = [10, 11, 12, 13, 14, 15, 16], [1], [20, 21, 22, 26, 30, 31, 32, 39], [50], [2, 3, 70]
    assert [{ranks[code] for code in group} for group in order] == [{0}, {1}, {2}, {3}, {5}]


def test_where_nothing_is_wrong_there_is_no_worst() -> None:
    assert worst([]) is None
