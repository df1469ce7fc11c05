"""A diff has what differs between two commits, or all that was touched, byte for byte and nothing else."""

from __future__ import annotations

import itertools
import random

import pytest

from mirrortool.address import pages_in
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.operation import Kind
from mirrortool.points import diff, indexpart
from mirrortool.points.diff import Diff, DiffCancelled, DiffRange
from mirrortool.points.view import open_point
from mirrortool.replay.makebase import MakeBase
from tests.fakes.histories import History
from tests.fakes.journals import PAGE, operations
from tests.fakes.pointviews import make_large_history


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_large_history(tmp_path_factory.mktemp("diff") / "journal", 8)


def diff_of(history: History, first: int, second: int, name: str, *, touched: bool) -> list[DiffRange]:
    journal = history.journal
    with open_point(journal, Until(lsn=first)) as old, open_point(journal, Until(lsn=second)) as new:
        return Diff(journal, old, new, name, touched=touched).run()


def pages_of(found: list[DiffRange]) -> dict[int, bool]:
    """Each page of some ranges, and whether it is zeros; they are ascending, and none could be joined to the next."""
    for one, other in itertools.pairwise(found):
        end = one.offset + one.length
        assert end < other.offset or (end == other.offset and one.is_zero != other.is_zero)
    pages = {}
    for each in found:
        assert each.offset % PAGE == 0
        pages |= dict.fromkeys(range(each.offset // PAGE, pages_in(each.offset + each.length, PAGE)), each.is_zero)
    return pages


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE].ljust(PAGE, b"\0") for at in range(0, len(data), PAGE)]


def touched_pages(history: History, after: int, last: int, name: str, size: int) -> set[int]:
    """The pages of a volume that operations touch, each of them taken for itself."""
    journal = history.journal
    first = journal.volumes.first_page(journal.volumes[name])
    others = [journal.volumes.first_page(each) for each in journal.volumes if each.name != name]
    found: set[int] = set()
    for operation in operations(journal, after):
        if operation.lsn > last:
            break
        place = operation.page - first
        if place < 0 or any(first < other <= operation.page for other in others):
            continue
        if operation.kind == Kind.RESIZE:
            found |= set(range(operation.count // PAGE, pages_in(size, PAGE))) if operation.count < size else set()
            size = operation.count
        elif operation.kind < Kind.COMMIT:
            found |= set(range(place, place + operation.count))
    return found


@pytest.mark.parametrize("touched", [False, True], ids=["content", "touched"])
@pytest.mark.parametrize("seed", range(25))
def test_what_differs_and_what_was_touched(
    history: History, monkeypatch: pytest.MonkeyPatch, seed: int, *, touched: bool
) -> None:
    monkeypatch.setattr(indexpart, "PART_OPERATIONS", 11)
    monkeypatch.setattr(diff, "_COMPARED_PAGES", 13)
    draw = random.Random(seed)
    first, second = (draw.choice(history.commits) for _ in range(2))
    if seed == 12:
        with MakeBase(history.journal.path, Until(lsn=history.commits[len(history.commits) // 2])) as making:
            making.run()
    name = draw.choice("ab")
    old, new = (history.states[lsn][name] for lsn in (first, second))
    found = diff_of(history, first, second, name, touched=touched)
    pages = pages_of(found)
    before, after = pieces(old), pieces(new)
    assert all(each.offset + each.length <= len(new) for each in found)
    assert all(is_zero == (not any(after[page])) for page, is_zero in pages.items())
    if touched:
        earlier, later = sorted((first, second))
        expected = touched_pages(history, earlier, later, name, len(history.states[earlier][name]))
        assert set(pages) == {page for page in expected if page < len(after)}
    else:
        before += [bytes(PAGE)] * (len(after) - len(before))
        assert set(pages) == {page for page, data in enumerate(after) if data != before[page]}


def test_the_new_volume_is_the_old_one_with_the_ranges_of_the_new(history: History) -> None:
    first, second = history.commits[1], history.commits[-1]
    old, new = (bytearray(history.states[lsn]["b"]) for lsn in (first, second))
    made = old[: len(new)].ljust(len(new), b"\0")
    for each in diff_of(history, first, second, "b", touched=False):
        made[each.offset : each.offset + each.length] = new[each.offset : each.offset + each.length]
    assert made == new


def test_a_volume_that_is_not_there_is_refused(history: History) -> None:
    with pytest.raises(UsageError, match="no volume c; its volumes: a, b"):
        diff_of(history, history.commits[0], history.commits[1], "c", touched=False)


def test_a_diff_that_is_cancelled_ends(history: History) -> None:
    with open_point(history.journal, Until(lsn=history.commits[0])) as old, open_point(history.journal, None) as new:
        cancelled = Diff(history.journal, old, new, "a", touched=False)
        cancelled.cancel()
        with pytest.raises(DiffCancelled):
            cancelled.run()
        assert cancelled.progress().lsn < cancelled.last_lsn
