"""A link that breaks at any byte, either way, costs nothing but time: the copy ends byte for byte as the journal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import LinkError, MirrortoolError
from mirrortool.journal.directory import Journal
from tests.fakes.journals import Commit, JournalMaker, Write, Zero, memory_directory
from tests.ship.pairs import Cable, FlippingCable, assert_is_prefix, assert_same, shipment

pytestmark = pytest.mark.usefixtures("no_directory_sync")


def small_journal(path: Path) -> Journal:
    """Eleven frames in four files, and a clean end."""
    maker = JournalMaker(path, {"disk": 64 * 512}, file_bytes=700)
    for number in range(5):
        maker.frame(Write("disk", number * 3, bytes([number + 1]) * 1024))
        maker.frame(Zero("disk", number, 1), Commit())
    maker.frame(Commit("end"))
    return maker.close()


class Durable:
    """Remembers what fdatasync has made durable of each file, and checks acknowledgements against it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, copy: Path, journal: Journal) -> None:
        self.sizes: dict[str, int] = {}
        self._copy, self._ends = copy, ends_of(journal)
        monkeypatch.setattr(files.File, "fdatasync", self._note())

    def _note(self) -> Any:
        sizes = self.sizes

        def fdatasync(file: files.File) -> None:
            sizes[file.path] = os.fstat(file.fileno()).st_size

        return fdatasync

    def check(self, position: dict[str, Any]) -> None:
        name, end = self._ends[position["lsn"]]
        assert self.sizes.get(str(self._copy / "files" / name), 0) >= end


def ends_of(journal: Journal) -> dict[int, tuple[str, int]]:
    """For the LSN at the end of each frame, its file and where it ends there."""
    from mirrortool.journal.reader import JournalReader

    with JournalReader(journal) as reader:
        ends = {}
        while header := reader.next_header():
            ends[header.position.lsn] = (os.path.basename(journal.file_path(reader.file_first_lsn)), reader.offset)
        return ends


def run_to_the_end(journal: Journal, cable: Cable) -> None:
    shipment(journal, cable, has_slot=False).run()


def bytes_both_ways(journal: Journal, path: Path) -> tuple[int, int]:
    cable = Cable(str(path))
    run_to_the_end(journal, cable)
    assert_same(journal, path)
    return cable.carried, cable.answered


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.soak), 17])
@pytest.mark.parametrize("way", ["to", "from"])
def test_cut_at_any_byte_then_resumed(way: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_directory() as place:
        journal = small_journal(place / "J")
        to, back = bytes_both_ways(journal, place / "whole")
        for at in range(0, to if way == "to" else back, stride):
            copy = place / f"C{at}"
            durable = Durable(monkeypatch, copy, journal)
            cable = Cable(str(copy), on_acknowledged=durable.check)
            cable.breaks_at, cable.answers_break_at = (at, None) if way == "to" else (None, at)
            # What a receiver answers depends on when it finds nothing to read: it may be done before the link breaks.
            with pytest.raises(LinkError) if way == "to" else suppress(LinkError):
                run_to_the_end(journal, cable)
            assert_is_prefix(journal, copy)
            again = Cable(str(copy), on_acknowledged=durable.check)
            run_to_the_end(journal, again)
            assert_same(journal, copy)
            assert all(isinstance(error, MirrortoolError) for error in cable.errors + again.errors)
            assert not again.errors
            assert Journal(str(copy)).clean_end == journal.clean_end


def test_flipped_byte_is_never_stored() -> None:
    with memory_directory() as place:
        journal = small_journal(place / "J")
        to, _ = bytes_both_ways(journal, place / "whole")
        for at in range(0, to, 61):
            copy = place / f"C{at}"
            cable = FlippingCable(str(copy), at)
            with pytest.raises(MirrortoolError):
                run_to_the_end(journal, cable)
            assert_is_prefix(journal, copy)
            run_to_the_end(journal, Cable(str(copy)))
            assert_same(journal, copy)
