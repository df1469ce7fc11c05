"""What arrives for a copy and does not follow what is there, or contradicts itself, is refused before it is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.errors import CorruptJournalError, LinkError
from mirrortool.journal import format as layout
from mirrortool.journal.codec import decode_frame_header
from mirrortool.journal.copies.arrivalchecks import check_frames
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.volume import VolumeSet
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, Zero
from tests.journal.sample import journal_files


class Arrival:
    """Three frames of a journal with one file: their bytes, and where each begins."""

    def __init__(self, path: Path) -> None:
        maker = JournalMaker(path, {"a": 8 * PAGE})
        start, self.volumes = maker.writer.position, maker.volumes
        self.positions = [start, *(maker.frame(Write("a", n, bytes([n + 1]) * PAGE)) for n in range(2))]
        self.positions.append(maker.frame(Commit()))
        self.journal: Journal = maker.close()
        self.data = journal_files(path)[0].read_bytes()
        self.offsets = [layout.FILE_HEADER.size]
        for _ in range(3):
            self.offsets.append(self.offsets[-1] + self._frame_bytes(self.offsets[-1]))
        assert self.offsets[-1] == len(self.data)

    def check(self, first: int, end: int, position: Position | None = None, time_ns: int = 0) -> Position:
        """Check the bytes from one offset to another, as those that arrive after a position."""
        after = (position or self.positions[self.offsets.index(first)], time_ns)
        data = memoryview(self.data)[first:end]
        volumes: VolumeSet = self.volumes
        return check_frames(self.journal, data, 1, first, after, None, volumes)[0]

    def _frame_bytes(self, offset: int) -> int:
        size = layout.FRAME_HEADER.size
        seed = layout.frame_seed(self.journal.uuid, 1, offset)
        return size + decode_frame_header(self.data[offset : offset + size], seed, PAGE).body_bytes


@pytest.fixture
def arrival(tmp_path: Path) -> Arrival:
    return Arrival(tmp_path / "journal")


def test_frames_that_follow_each_other_are_accepted(arrival: Arrival) -> None:
    assert arrival.check(arrival.offsets[0], arrival.offsets[3]) == arrival.positions[3]


def test_a_frame_that_does_not_follow_is_refused(arrival: Arrival) -> None:
    with pytest.raises(LinkError, match=f"offset {arrival.offsets[1]} .*: the frame does not continue the one before"):
        arrival.check(arrival.offsets[1], arrival.offsets[3], arrival.positions[0])
    other = Position(arrival.positions[1].lsn, arrival.positions[1].chain ^ 1)
    with pytest.raises(LinkError, match="does not continue the one before"):
        arrival.check(arrival.offsets[1], arrival.offsets[3], other)


def test_a_frame_that_is_cut_or_older_is_refused(arrival: Arrival) -> None:
    with pytest.raises(LinkError, match=f"offset {arrival.offsets[2]} .*: the frame is cut short, or older"):
        arrival.check(arrival.offsets[0], arrival.offsets[3] - 1)
    with pytest.raises(LinkError, match=f"offset {arrival.offsets[0]} .*: the frame is cut short, or older"):
        arrival.check(arrival.offsets[0], arrival.offsets[3], time_ns=1 << 62)


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_that_turned_on_the_way_is_found_in_every_byte(arrival: Arrival, bit: int) -> None:
    whole = arrival.data
    for at in range(arrival.offsets[0], len(whole)):
        arrival.data = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        with pytest.raises(LinkError, match="was damaged on the way"):
            arrival.check(arrival.offsets[0], arrival.offsets[3])


def test_a_frame_that_contradicts_itself_is_the_senders_fault(tmp_path: Path) -> None:
    """Its checksum holds, so that it was sent so: an operation outside of every volume."""
    maker = JournalMaker(tmp_path / "journal", {"a": 8 * PAGE})
    before, volumes = maker.writer.position, maker.volumes
    maker.frame(Zero("a", 7, 2))
    journal = maker.close()
    data = memoryview(journal_files(tmp_path / "journal")[0].read_bytes())[layout.FILE_HEADER.size :]
    with pytest.raises(CorruptJournalError, match="LSN 1 that arrives contradicts itself"):
        check_frames(journal, data, 1, layout.FILE_HEADER.size, (before, 0), None, volumes)
