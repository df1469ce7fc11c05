"""Journals with a random history of every kind of operation, and what the volumes held at each commit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from mirrortool.journal.directory import Journal
from tests.fakes.journals import PAGE, Commit, JournalMaker, Op, Resize, Write, Zero
from tests.fakes.serial import volumes_at

SIZES = {"a": 60 * PAGE, "b": 40 * PAGE + 99}


@dataclass(frozen=True)
class History:
    """A journal that was stopped cleanly, its commits, and each volume's bytes at each of them."""

    journal: Journal
    commits: list[int]
    states: dict[int, dict[str, bytes]]


def make_history(
    path: Path, seed: int, frames: int = 120, *, file_bytes: int = 12_000, resizes: bool = True
) -> History:
    """A journal of many files; as a copy, without a recorder's checkpoint, so that all of them may go."""
    draw = random.Random(seed)
    sizes = dict(SIZES)
    maker = JournalMaker(path, sizes, file_bytes=file_bytes)
    for _ in range(frames):
        maker.frame(*_operations(draw, sizes, resizes))
    maker.frame(Commit())
    journal = maker.close()
    (path / "recorder.json").unlink()
    return History(journal, maker.commits, {lsn: volumes_at(journal, lsn) for lsn in maker.commits})


def _operations(draw: random.Random, sizes: dict[str, int], resizes: bool) -> list[Op]:
    name = draw.choice(sorted(sizes))
    if resizes and draw.random() < 0.04:
        sizes[name] = draw.randrange(10 * PAGE, 80 * PAGE)
        return [Resize(name, sizes[name])]
    pages = -(-sizes[name] // PAGE)
    first = draw.randrange(pages)
    count = draw.randint(1, min(6, pages - first))
    change = Zero(name, first, count) if draw.random() < 0.2 else Write(name, first, draw.randbytes(count * PAGE))
    return [change, Commit()] if draw.random() < 0.4 else [change]
