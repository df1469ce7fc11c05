"""Views of journals at a commit, compared with the serial model, and a random history with large volumes for them."""

from __future__ import annotations

import random
from pathlib import Path

from mirrortool.checksum import page_sums, unpack_sums
from mirrortool.journal.directory import Journal
from mirrortool.points.view import PointView
from tests.fakes.histories import History
from tests.fakes.journals import PAGE, Commit, JournalMaker, Op, Resize, Write, Zero
from tests.fakes.serial import volumes_at

SIZES = {"a": 700 * PAGE, "b": 300 * PAGE + 99}


def contents(view: PointView) -> dict[str, bytes]:
    """The bytes of each volume."""
    found = {}
    for volume in view.volumes:
        buffer = bytearray(view.volumes.page_count(volume) * view.page_size)
        if buffer:
            view.read_into(view.volumes.first_page(volume), [memoryview(buffer)])
        found[volume.name] = bytes(buffer[: volume.size])
    return found


def check(view: PointView, expected: dict[str, bytes]) -> None:
    """Bytes, sums and runs of data are those of the volumes that are expected."""
    assert contents(view) == expected
    assert view.volumes.sizes == {name: len(data) for name, data in expected.items()}
    size = view.page_size
    for volume in view.volumes:
        first, count = view.volumes.first_page(volume), view.volumes.page_count(volume)
        data = expected[volume.name].ljust(count * size, b"\0")
        sums = page_sums([data[at : at + size] for at in range(0, len(data), size)], size) if count else b""
        assert view.sums_of(first, count) == sums
        held = {page for run, length in view.data_runs(first, count) for page in range(run, run + length)}
        assert held == {first + number for number, each in enumerate(unpack_sums(sums)) if each}


def make_large_history(path: Path, seed: int, frames: int = 60, *, file_bytes: int = 40_000) -> History:
    """A journal of several files: writes and ZEROs of many pages, and volumes that shrink and grow."""
    draw = random.Random(seed)
    sizes = dict(SIZES)
    maker = JournalMaker(path, sizes, file_bytes=file_bytes)
    for _ in range(frames):
        maker.frame(*(op for _ in range(draw.randint(1, 4)) for op in [_operation(draw, sizes)]), *_commit(draw))
    maker.frame(Commit())
    journal = maker.close()
    (path / "recorder.json").unlink()
    return History(journal, maker.commits, {lsn: volumes_at(journal, lsn) for lsn in maker.commits})


def _commit(draw: random.Random) -> list[Op]:
    return [Commit()] if draw.random() < 0.3 else []


def _operation(draw: random.Random, sizes: dict[str, int]) -> Op:
    name = draw.choice(sorted(sizes))
    if draw.random() < 0.06:
        sizes[name] = draw.choice([draw.randrange(10 * PAGE, 900 * PAGE), sizes[name] + 7, max(1, sizes[name] - 5)])
        return Resize(name, sizes[name])
    pages = -(-sizes[name] // PAGE)
    first = draw.randrange(pages)
    if draw.random() < 0.25:
        return Zero(name, first, draw.randint(1, pages - first))
    count = draw.randint(1, min(draw.choice([1, 4, 40]), pages - first))
    data = draw.randbytes(PAGE) if draw.random() < 0.5 else draw.randbytes(count * PAGE)
    return Write(name, first, (data * count)[: count * PAGE])


def reopened(journal: Journal) -> Journal:
    """The same journal, as another process opens it."""
    return Journal(journal.path)
