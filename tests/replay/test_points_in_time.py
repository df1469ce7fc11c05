"""Every hundredth of 2,000 commits, restored by its time, is the copy that was kept when it was made."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from mirrortool.journal.bases.listing import base_lsns
from mirrortool.journal.commits import Until
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.replay.makebase import MakeBase
from tests.conftest import FakeClock
from tests.fakes.journals import (
    FRAME_NS,
    PAGE,
    START_NS,
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    images_of,
    memory_directory,
    replay_all,
)

pytestmark = pytest.mark.usefixtures("no_sync")


class Volumes:
    """The copies: bytes of each volume, changed beside the journal by code of its own."""

    def __init__(self, sizes: dict[str, int], seed: int) -> None:
        self.draw = random.Random(seed)
        self.data = {name: bytearray(size) for name, size in sizes.items()}

    def change(self) -> Write | Zero | Resize:
        name = self.draw.choice(sorted(self.data))
        data = self.data[name]
        if self.draw.random() < 0.01:
            size = self.draw.randrange(len(data) - 2 * PAGE, len(data) + 2 * PAGE)
            del data[size - size % PAGE if size < len(data) else len(data) :]
            data.extend(bytes(size - len(data)))
            return Resize(name, size)
        page = self.draw.randrange(len(data) // PAGE)
        if self.draw.random() < 0.1:
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
            return Zero(name, page, 1)
        new = self.draw.randbytes(PAGE)
        data[page * PAGE : (page + 1) * PAGE] = new
        return Write(name, page, new)


@pytest.mark.parametrize(
    ("pages", "changes"), [(24, 1), pytest.param(4096, 8, marks=pytest.mark.soak)], ids=["small", "large"]
)
def test_every_hundredth_commit_by_time_also_after_base_and_prune(
    pages: int, changes: int, fake_clock: FakeClock
) -> None:
    with memory_directory() as path:
        sizes = {"a": pages * PAGE, "b": pages * PAGE // 2 + 99}
        volumes, maker = Volumes(sizes, pages), JournalMaker(path / "journal", sizes, file_bytes=40 * changes * PAGE)
        copies: dict[int, dict[str, bytes]] = {}
        for number in range(1, 2001):
            maker.frame(*(volumes.change() for _ in range(changes)), Commit())
            if number % 100 == 0:
                copies[number] = {name: bytes(data) for name, data in volumes.data.items()}
        journal = maker.close()
        (path / "journal" / "recorder.json").unlink()

        def check(first: int) -> None:
            for number in (each for each in copies if each >= first):
                replay_all(journal, path / "mirror", until=Until(time_ns=START_NS + number * FRAME_NS), read_back=False)
                assert images_of(path / "mirror") == copies[number], number
                shutil.rmtree(path / "mirror")

        check(1)
        for number in (450, 990, 1620):
            with MakeBase(journal.path, Until(time_ns=START_NS + number * FRAME_NS)) as making:
                making.run()
        check(1)
        fake_clock.ns = START_NS + 2000 * FRAME_NS
        for keep, oldest_base in ((1500, 450), (700, 990), (100, 1620)):
            assert prune(journal.path, Keep(seconds=keep * FRAME_NS / 1e9)).plan.files
            assert base_lsns(journal)[0] == maker.commits[oldest_base - 1]
            check(2000 - keep)
        assert Path(journal.path, "files").exists()
