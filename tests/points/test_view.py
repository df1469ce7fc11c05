"""A view shows what the volumes held at a commit: bytes, sums and holes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mirrortool.journal.point import Until
from mirrortool.points import indexpart, pagemap
from mirrortool.points.view import open_point
from mirrortool.replay.makebase import MakeBase
from tests.fakes.pointviews import check, make_large_history


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("small", [False, True], ids=["", "small"])
def test_every_commit_is_what_serial_replay_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, small: bool
) -> None:
    if small:  # everything in parts, and out of memory
        monkeypatch.setattr(indexpart, "PART_OPERATIONS", 7)
        monkeypatch.setattr(pagemap, "CHUNKS_MAX", 2)
    history = make_large_history(tmp_path / "journal", seed)
    draw = random.Random(seed)
    commits = draw.sample(history.commits, len(history.commits))
    based = sorted(draw.sample(commits, 2))
    for number, lsn in enumerate(commits):
        if number in (3, 9):
            with MakeBase(history.journal.path, Until(lsn=based[number // 9])) as making:
                making.run()
        with open_point(history.journal, Until(lsn=lsn)) as view:
            assert view.commit.lsn == lsn
            check(view, history.states[lsn])
