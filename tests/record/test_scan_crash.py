"""However a scan dies, the next one ends with a journal that is the volumes, and mirrors follow."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mirrortool.errors import InputOutputError, TornJournalError
from mirrortool.journal.reader import JournalReader
from mirrortool.record import recovery
from mirrortool.record import scan as scan_module
from mirrortool.replay import readback
from mirrortool.store import parallelread
from tests.fakes.disk import PowerCut, faulty
from tests.fakes.volumes import PAGE, Primary, adopt, make_primary, pattern
from tests.record.killed_scan import die_at, make_small

ROOT = Path(__file__).parents[2]
KILLS = 20


@pytest.fixture(autouse=True)
def _unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What killed_scan patches, this puts back."""
    for owner, name in [(parallelread, "PIECE_BYTES"), (readback, "PIECE_BYTES"), (scan_module, "PENDING_PAGES")]:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(recovery, "JournalWriter", recovery.JournalWriter)


def change_something(primary: Primary, rng: random.Random) -> None:
    for name in primary.paths:
        if rng.random() < 0.3:
            primary.resize(name, rng.randrange(100 * PAGE))
        size = os.path.getsize(primary.paths[name])
        for _ in range(rng.randrange(6)):
            offset = rng.randrange(size + 1)
            length = min(rng.randrange(1, 12 * PAGE), size - offset)
            data = bytes(length) if rng.random() < 0.3 else rng.randbytes(length)
            primary.write(name, offset, data)


def check_mirror(primary: Primary, name: str = "mirror") -> None:
    mirror = primary.mirror(name)
    contents = {kept.name: Path(mirror.volume_path(kept)).read_bytes() for kept in mirror.kept}
    assert contents == primary.contents()


def check_recovers(primary: Primary, number: object) -> None:
    """The next scan, and what it leaves."""
    result = primary.scan()
    primary.check()
    other = f"{primary.directory}/other{number}"
    os.mkdir(other)
    assert result.state_sum == adopt(other, primary.paths).scan().state_sum
    assert primary.scan().statistics.pages_written == 0


def test_a_successor_that_was_only_begun_is_cleared_away(directory: str) -> None:
    """Else the frames that follow go to the file before it, and it counts as damage from then on."""
    primary = make_primary(directory, {"a": pattern(1, 9 * PAGE)})
    commit = primary.scan().commit
    primary.journal.save_clean_end(None)
    Path(primary.journal.file_path(commit.lsn + 1)).write_bytes(b"\x89MJF")
    for _ in range(3):
        primary.scan()
    primary.check()


def test_a_killed_scan_is_continued_by_the_next(directory: str) -> None:
    rng = random.Random(20)
    primary = make_primary(directory, {"a": pattern(1, 90 * PAGE + 5), "b": 40 * PAGE})
    killed = torn = 0
    for number in range(KILLS):
        change_something(primary, rng)
        command = [sys.executable, "-m", "tests.record.killed_scan", primary.journal_path, str(rng.randrange(1, 60))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        killed += done.returncode == -9
        try:
            with JournalReader(primary.journal, primary.journal.start) as reader:
                while reader.next_frame():
                    pass
        except TornJournalError:
            torn += 1
        check_recovers(primary, number)
        check_mirror(primary)
        assert len(os.listdir(primary.journal.torn_path)) >= torn
    assert killed > KILLS // 2
    assert torn


@pytest.mark.parametrize(
    "number", [*range(1, 60, 2), *(pytest.param(number, marks=pytest.mark.soak) for number in range(2, 60, 2))]
)
def test_a_scan_that_dies_at_any_call_is_continued_by_the_next(directory: str, number: int) -> None:
    primary = make_primary(directory, {"a": pattern(1, 60 * PAGE), "b": pattern(2, 9 * PAGE)})
    make_small()
    primary.scan()
    check_mirror(primary)
    primary.write("a", 0, pattern(3, 30 * PAGE))
    primary.punch("a", 40 * PAGE, 8 * PAGE)
    primary.resize("b", 4 * PAGE + 1)
    primary.write("b", 0, b"b")

    def die() -> None:
        raise PowerCut

    with faulty(die_at(number, die)) as system:
        try:
            primary.scan()
        except (PowerCut, InputOutputError):  # a thread beside the one that dies may meet half a frame before it dies
            assert system.disk.is_off
    assert system.disk.is_off or number > 30
    check_recovers(primary, "")
    check_mirror(primary)
    check_mirror(primary, "another")
