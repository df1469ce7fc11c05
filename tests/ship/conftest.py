"""Fixtures of shipping: a pruned journal, a place in memory, and directories that nothing makes durable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal.commits import Until
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.replay.makebase import MakeBase
from tests.fakes.journals import PAGE, JournalMaker, memory_directory, replay_all
from tests.ship.prunedjournal import BASE, BEHIND, END, PAGES, Pruned, fill
from tests.ship.shipments import local


@pytest.fixture
def no_directory_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes no directory durable: for tests that read back what the same kernel wrote."""
    monkeypatch.setattr(files, "sync_directory", lambda _: None)


@pytest.fixture(scope="module")
def original() -> Iterator[Pruned]:
    """Forty commits; the copy has eight, the base is of the twenty-fourth."""
    with memory_directory() as path:
        maker = JournalMaker(path / "J", {"disk": PAGES * PAGE}, file_bytes=1500)
        image = bytearray(PAGES * PAGE)
        fill(maker, BEHIND, image)
        maker.writer.sync()
        local(maker.journal, path / "behind", has_slot=False).run()
        replay_all(str(path / "behind"), path / "mirror")
        fill(maker, END - BEHIND, image)
        journal = maker.close()
        (path / "J" / "recorder.json").unlink()
        with MakeBase(journal.path, Until(lsn=2 * BASE)) as making:
            making.run()
        prune(journal.path, Keep())
        oldest = journal.file_starts()[0]
        assert 2 * BEHIND + 1 < oldest < 2 * BASE
        yield Pruned(maker, path / "behind", path / "mirror", bytes(image))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory."""
    with memory_directory() as path:
        yield path
