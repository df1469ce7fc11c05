"""A primary's journal, what another host has received of it, and a mirror there that becomes the primary."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mirrortool.change import Change
from mirrortool.journal.codec import decode_file_header
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slots import Slot, SlotKeeper, slots
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.record.recorder import Recorder
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Op,
    Resize,
    Write,
    Zero,
    assert_verifies,
    images_of,
    replay_all,
)
from tests.fakes.serial import volumes_at

SIZES = {"a": 20 * PAGE, "b": 6 * PAGE + 99}


def page(letter: str, count: int = 1) -> bytes:
    return letter.encode() * (PAGE * count)


FRAMES: list[list[Op]] = [
    [Write("a", 0, page("A", 4)), Write("b", 1, page("B")), Commit()],  # LSN 3
    [Write("a", 2, page("C", 3)), Zero("a", 0, 1), Commit("first")],  # 6
    [Resize("a", 12 * PAGE + 5), Write("b", 6, page("D")), Commit()],  # 9
    [Write("a", 7, page("E")), Commit("last")],  # 11
]
AFTER: list[list[Op]] = [[Write("a", 8, page("X", 2))], [Write("b", 0, page("Y"))]]  # 12, 13: no commit


@dataclass
class Site:
    """A primary's journal, the copy of it that another host received, and a mirror there.

    Attributes:
        primary: as the old primary has it, and may continue with.
    """

    path: Path
    primary: Journal

    @property
    def journal(self) -> str:
        return str(self.path / "J")

    @property
    def mirror(self) -> str:
        return str(self.path / "M")

    def receive(self) -> None:
        """Have all that the primary has."""
        receive(self.primary, self.path / "J")

    def promote(self, **options: object) -> Promotion:
        return promote(self.mirror, **options)


def receive(primary: Journal, target: Path) -> None:
    """What a receiver has: the journal, and nothing of the primary's host."""
    target.mkdir(exist_ok=True)
    shutil.copy(f"{primary.path}/journal.json", target)
    shutil.copytree(f"{primary.path}/files", target / "files", dirs_exist_ok=True)


def promote(mirror: str, **options: object) -> Promotion:
    """All of it."""
    with Promotion(mirror, **options) as promotion:
        if promotion.plan:
            promotion.drain()
            promotion.verify()
        promotion.carry_out()
    return promotion


def make_site(path: Path, frames: list[list[Op]], *, file_bytes: int = 64 << 20, until: Until | None = None) -> Site:
    maker = JournalMaker(path / "primary", SIZES, file_bytes=file_bytes)
    for frame in frames:
        maker.frame(*frame)
    site = Site(path, maker.abandon())
    site.receive()
    if until:
        replay_all(site.journal, site.mirror, until=until)
    return site


def contents_of(journal: str) -> dict[str, bytes]:
    """The volumes that a journal names on this host."""
    return {name: Path(path).read_bytes() for name, path in Journal(journal).volume_paths().items()}


def record_on(journal: str, letter: str = "N") -> dict[str, bytes]:
    """Record live: the volumes' bytes after a clean stop."""
    with Recorder(journal, background=False) as recorder:
        assert not recorder.statistics().incomplete
        recorder.change("a", [Change(PAGE, PAGE, page(letter))])
        recorder.commit()
    return contents_of(journal)


def check_is_primary(journal: str, promotion: Promotion, scratch: Path) -> None:
    """It can be recorded to, and a new mirror of it is what its volumes are."""
    assert contents_of(journal) == volumes_at(Journal(journal), promotion.promoted.epoch.start.lsn)
    now = record_on(journal)
    assert volumes_at(Journal(journal)) == now
    replay_all(journal, scratch)
    assert images_of(scratch) == now
    assert_verifies(scratch)
    shutil.rmtree(scratch)


def headers(journal: str) -> list[tuple[int, int]]:
    """First LSN and epoch of each journal file."""
    found = [decode_file_header(path.read_bytes()) for path in sorted(Path(journal, "files").iterdir())]
    return [(header.first_lsn, header.epoch) for header in found]


def register(journal: str, mirror: str) -> None:
    """Slots: of a mirror at the fork, of one behind it, of one with another history, and of the one to be promoted."""
    last = Position(11, _chain_at(journal, 11))
    owners = {"there": last, "ahead": Position(13, 1), "other": Position(11, 1), "behind": Position(3, 1)}
    for name, position in owners.items():
        SlotKeeper(Journal(journal), Slot(name, name, "mirror", "/srv", position, 0, 0))
    SlotKeeper(Journal(journal), Slot("own", Mirror(mirror).uuid.hex(), "mirror", mirror, last, 0, 0))


def _chain_at(journal: str, lsn: int) -> int:
    with JournalReader(Journal(journal)) as reader:
        while reader.position.lsn < lsn:
            reader.next_header()
        return reader.position.chain


def check_slots(journal: str) -> None:
    found = {slot.name: slot.is_lost for slot in slots(Journal(journal))}
    assert found == {"there": False, "behind": False, "ahead": True, "other": True}


def snapshot(path: Path) -> dict[str, bytes]:
    """All files but locks and receipts."""
    found = (each for each in path.rglob("*") if each.is_file() and each.name != "lock" and "receipts" not in str(each))
    return {str(each): each.read_bytes() for each in found}
