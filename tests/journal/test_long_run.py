"""Days of one-a-second commits on a compressed clock: files, slots, descriptors and memory stay bounded.

`pytest -m soak tests/journal/test_long_run.py` is the run over 48 hours.
"""

from __future__ import annotations

import gc
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirrortool.journal import slots
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import Slot, SlotKeeper
from mirrortool.replay.makebase import MakeBase
from tests.conftest import FakeClock
from tests.fakes import journals
from tests.fakes.descriptors import open_descriptors
from tests.fakes.journals import PAGE, START_NS, Commit, JournalMaker, Write, memory_directory, replay_all

HOUR = 3600


@dataclass
class Seen:
    """The most that was seen of each, after an hour that was not the first."""

    files: int = 0
    bytes: int = 0
    descriptors: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def look(self, path: Path) -> None:
        found = list((path / "files").iterdir())
        self.files = max(self.files, len(found))
        self.bytes = max(self.bytes, sum(each.stat().st_size for each in path.rglob("*") if each.is_file()))
        self.descriptors.append(len(open_descriptors()))
        gc.collect()
        self.blocks.append(sys.getallocatedblocks())


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize(
    ("hours", "base_hours", "keep_seconds", "step"),
    [(2, 0.25, 0.2 * HOUR, 900), pytest.param(48, 6, HOUR, HOUR, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
    ids=["2h", "48h"],
)
def test_a_commit_a_second_for_days(
    hours: int,
    base_hours: float,
    keep_seconds: float,
    step: int,
    fake_clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pruned each `step` seconds, with a base each `base_hours`, and a follower that is a minute behind."""
    monkeypatch.setattr(journals, "FRAME_NS", 10**9)
    fake_clock.ns, seen = START_NS, Seen()
    with memory_directory() as path:
        maker = JournalMaker(path / "journal", {"a": 64 * PAGE}, sync_commits=False)
        journal = maker.journal
        (path / "journal" / "recorder.json").unlink()
        follower = JournalReader(journal, headers_only=True)
        keeper = SlotKeeper(journal, Slot("follower", "aa" * 16, "mirror", "/m", journal.start, 0, 0))
        for second in range(1, hours * HOUR + 1):
            fake_clock.advance(1.0)
            maker.frame(Write("a", second % 64, second.to_bytes(8, "big") + bytes(PAGE - 8)), Commit())
            if second % 60 == 0:
                while follower.position.lsn < maker.writer.position.lsn - 120:
                    assert follower.next_header()
                keeper.advance(follower.position, follower.time_ns)
            if second % int(base_hours * HOUR) == 0:
                with MakeBase(journal.path) as making:
                    making.run()
            if second % step == 0:
                pruned = prune(journal.path, Keep(seconds=keep_seconds))
                assert not pruned.plan.lost
                assert len(slots.slots(journal)) == 1
                assert len(base_lsns(journal)) <= 2
                maker.commits.clear()
                seen.look(path / "journal")
        follower.close()
        journal = maker.close()
        # A file an hour, and what a base, the hour that is kept and the next base's start need.
        assert seen.files <= base_hours + keep_seconds / HOUR + 3
        assert journal.file_starts()[0] > 1
        half = len(seen.descriptors) // 2
        assert max(seen.descriptors[half:]) <= max(seen.descriptors[:half])
        assert max(seen.blocks[half:]) <= max(seen.blocks[:half]) + 5000
        assert Audit(journal.path).run().lsn == 2 * hours * HOUR
        replay_all(journal, path / "mirror", read_back=False)
        last = (hours * HOUR).to_bytes(8, "big")
        page = (hours * HOUR) % 64
        assert (path / "mirror/volumes/a.img").read_bytes()[page * PAGE : page * PAGE + 8] == last
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{2 * hours * HOUR} operations: at most {seen.files} files, {seen.bytes} bytes, {max(seen.descriptors)} "
        f"descriptors, {max(seen.blocks)} blocks of Python's memory, {memory} KiB of the process"
    )
