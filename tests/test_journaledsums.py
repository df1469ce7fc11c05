"""A table of sums as of any LSN is that of the bytes which serial replay gives up to there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.checksum import page_sums
from mirrortool.errors import CorruptJournalError, PrunedJournalError
from mirrortool.journal.directory import Journal
from mirrortool.journaledsums import sums_as_of
from mirrortool.store.pagesums import PageSums
from tests.fakes.journals import PAGE, Commit, JournalMaker, Op, Resize, Write, Zero
from tests.fakes.serial import volumes_at

pytestmark = pytest.mark.usefixtures("no_sync")
SIZES = {"a": 20 * PAGE, "b": 7 * PAGE + 100}


def written(seed: int, pages: int = 1) -> bytes:
    return b"".join(bytes([seed + page]) * PAGE for page in range(pages))


FRAMES: list[list[Op]] = [
    [Write("a", 0, written(1, 3)), Zero("a", 1, 1)],
    [Write("b", 7, written(9)), Commit()],
    [Resize("a", 2 * PAGE + 10)],
    [Write("a", 1, written(20)), Write("b", 0, written(30, 2))],
    [Resize("a", 20 * PAGE), Zero("b", 0, 1)],
    [Commit("done")],
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    maker = JournalMaker(tmp_path / "journal", SIZES, file_bytes=1)
    for frame in FRAMES:
        maker.frame(*frame)
    return maker.close()


def sums_of(table: PageSums, name: str, size: int) -> bytes:
    count = -(-size // PAGE)
    return table.read(table.volumes.first_page(table.volumes[name]), count)


@pytest.mark.parametrize("lsn", [0, 2, 4, 5, 7, 9, 10, 99])
def test_sums_are_those_of_serial_replay(journal: Journal, tmp_path: Path, lsn: int) -> None:
    place = tmp_path / "sums"
    place.mkdir()
    table = sums_as_of(journal, str(place), lsn)
    try:
        expected = (
            volumes_at(journal, lsn if lsn < 10 else None) if lsn else {name: bytes(SIZES[name]) for name in SIZES}
        )
        for name, content in expected.items():
            assert table.volumes[name].size == len(content)
            padded = content + bytes(-len(content) % PAGE)
            pages = [padded[start : start + PAGE] for start in range(0, len(padded), PAGE)]
            assert sums_of(table, name, len(content)) == page_sums(pages, PAGE)
        assert table.state_sum == table.compute_state_sum()
    finally:
        table.close()


def test_files_that_went_without_a_base_are_named(journal: Journal, tmp_path: Path) -> None:
    Path(journal.file_path(1)).unlink()
    with pytest.raises(PrunedJournalError, match="there is no base between that and LSN 5"):
        sums_as_of(journal, str(tmp_path), 5)


def test_an_operation_outside_the_volumes_is_damage(tmp_path: Path) -> None:
    maker = JournalMaker(tmp_path / "journal", SIZES)
    maker.frame(Write("a", 0, written(1)))
    maker.frame(Zero("a", 19, 500))
    journal = maker.close()
    with pytest.raises(CorruptJournalError, match="lies outside the volumes"):
        sums_as_of(journal, str(tmp_path), 2)
