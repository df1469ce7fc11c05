"""A pruned journal to ship by its base, and what must be true of each copy of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mirrortool.journal.bases.listing import base_lsns, base_path, open_base
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.replay.makebase import MakeBase
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write
from tests.ship.shipments import local


@dataclass
class Pruned:
    """A journal without its older files.

    Attributes:
        behind: a copy that ends before the journal's oldest file, with a mirror beside it, of the same end.
        image: what the volume holds at the end.
    """

    maker: JournalMaker
    behind: Path
    mirror: Path
    image: bytes

    @property
    def journal(self) -> Journal:
        return self.maker.journal

    def copy(self, path: Path) -> Path:
        """A copy that is behind."""
        shutil.copytree(self.behind, path)
        return path


BEHIND, BASE, END, PAGES = 8, 24, 40, 8


def page_of(number: int) -> bytes:
    return bytes([number % 251 + 1]) * (PAGE // 2) + os.urandom(PAGE // 2)


def fill(maker: JournalMaker, count: int, image: bytearray) -> None:
    for _ in range(count):
        number = maker.writer.position.lsn // 2
        page = page_of(number)
        image[number % PAGES * PAGE : (number % PAGES + 1) * PAGE] = page
        maker.frame(Write("disk", number % PAGES, page), Commit())


def assert_sound(copy: Path) -> None:
    """Every frame from the oldest on can be read, and where that is not LSN 1, a base stands for what was before."""
    if not (copy / "journal.json").exists():
        return
    journal = Journal(str(copy))
    starts = journal.file_starts()
    with JournalReader(journal) as reader:
        while reader.next_frame():
            pass
    if starts and starts[0] > 1:
        assert any(starts[0] <= lsn for lsn in base_lsns(journal))
    for lsn in base_lsns(journal):
        with open_base(journal, lsn) as base:
            for _ in base.frames():
                pass


def assert_whole(pruned: Pruned, copy: Path) -> None:
    """The copy continues from the base as the journal does, and a new mirror of it is the primary's state."""
    journal, copied = pruned.journal, Journal(str(copy))
    assert base_lsns(copied) == [2 * BASE]
    assert Path(base_path(copied, 2 * BASE)).read_bytes() == Path(base_path(journal, 2 * BASE)).read_bytes()
    starts = copied.file_starts()
    assert starts == [start for start in journal.file_starts() if start >= starts[0]]
    assert starts[0] <= 2 * BASE
    for start in starts:
        assert Path(copied.file_path(start)).read_bytes() == Path(journal.file_path(start)).read_bytes()
    assert not list((copy / "bases/arriving").iterdir())
    assert_sound(copy)


def make_pruned(place: Path) -> Pruned:
    """A journal without its older files, and a copy that is behind them."""
    maker = JournalMaker(place / "J", {"disk": PAGES * PAGE}, file_bytes=1500)
    image = bytearray(PAGES * PAGE)
    fill(maker, BEHIND, image)
    maker.writer.sync()
    local(maker.journal, place / "behind", has_slot=False).run()
    fill(maker, END - BEHIND, image)
    journal = maker.close()
    (place / "J" / "recorder.json").unlink()
    with MakeBase(journal.path, Until(lsn=2 * BASE)) as making:
        making.run()
    prune(journal.path, Keep())
    return Pruned(maker, place / "behind", place / "mirror", bytes(image))
