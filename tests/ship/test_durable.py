"""What a sender was told that a copy has it has after a power cut at any call; see tests/fakes/cuts.py. Also of a base.

The sender's journal is on another machine; its slot says up to where it was told that the copy has everything.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool.journal import format as layout
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot, locked, save, slots
from mirrortool.ship.shipoptions import RefusedError
from tests.fakes.cuts import EACH_CALL, kill_everywhere, lose_everywhere
from tests.fakes.disk import Call, LosingSync, faulty
from tests.fakes.journals import memory_directory
from tests.ship.prunedjournal import Pruned, assert_sound, assert_whole, make_pruned
from tests.ship.shipments import local


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


class Shipping:
    """A journal that was pruned is shipped to a copy that ends before it begins, so that a base goes first.

    The copy has a slot of a mirror that is as far as the copy.
    """

    def __init__(self, place: Path) -> None:
        (place / "sender").mkdir()
        self._pruned: Pruned = make_pruned(place / "sender")
        self.elsewhere, self._copy = str(place / "sender"), place / "C"

    def prepare(self) -> None:
        for path in (self._copy, Path(self._pruned.journal.path, "slots")):
            shutil.rmtree(path, ignore_errors=True)
        self._pruned.copy(self._copy)
        journal = Journal(str(self._copy))
        copy = Copy(str(self._copy))
        with locked(journal):
            save(journal, Slot("slow", "aa" * 16, "mirror", "/m", copy.position, 1, 0))
        copy.close()

    def act(self) -> None:
        local(self._pruned.journal, self._copy).run()

    def check(self, has_ended: bool = True) -> None:
        files = list((self._copy / "files").iterdir())
        is_told = json.loads((self._copy / "slots/slow.json").read_bytes())["is_lost"]
        assert is_told or any(layout.parse_file_name(path.name) == 1 for path in files), "its reader is not told"
        copy = Copy(str(self._copy))  # which finishes what is due, and cuts what is torn
        told = [slot.position.lsn for slot in slots(self._pruned.journal)]
        assert all(copy.position.lsn >= lsn for lsn in told), "the sender was told too much"
        copy.close()
        assert_sound(self._copy)
        if not has_ended:
            with suppress(RefusedError):  # what is left of the base is damaged, and goes; then it begins anew
                self.act()
            self.act()
        assert_whole(self._pruned, self._copy)


@EACH_CALL
def test_what_the_sender_was_told_is_there(place: Path, step: int) -> None:
    run = Shipping(place)
    lose_everywhere(run.prepare, run.act, run.check, least=40, step=step, elsewhere=run.elsewhere)


@EACH_CALL
def test_what_a_killed_receiver_left_is_completed_durably(place: Path, step: int) -> None:
    run = Shipping(place)
    kill_everywhere(run.prepare, run.act, run.check, least=40, step=step, elsewhere=run.elsewhere)


def test_what_a_failed_fdatasync_dropped_of_a_base_is_written_again(place: Path) -> None:
    """It could not be removed either; until the next boot the kernel reads it, and a later fdatasync succeeds."""
    (place / "sender").mkdir()
    original = make_pruned(place / "sender")
    copy = original.copy(place / "C")
    failing = [True]

    def fault(call: Call) -> None:
        if failing and "/bases/arriving/" in call.path:
            if call.name == "fdatasync":
                raise LosingSync(errno.EIO, share=1.0)
            if call.name == "unlink":
                raise OSError(errno.EIO, "failing")

    with faulty(fault) as system:
        with pytest.raises(RefusedError, match="cannot make durable"):
            local(original.journal, copy, has_slot=False).run()
        assert list((copy / "bases/arriving").iterdir())
        failing.clear()
        local(original.journal, copy, has_slot=False).run()
        system.disk.lose_all()
    assert_whole(original, copy)
