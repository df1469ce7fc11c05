"""One journal into files, one backing and five: equal bytes and state sums, whatever the windows, and after crashes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import NoSpaceError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.engine import Plan
from tests.fakes.cuts import Killed, kill_at
from tests.fakes.disk import PowerCut, cut_at, faulty
from tests.fakes.histories import make_history
from tests.fakes.journals import (
    PAGE,
    Commit,
    Write,
    Zero,
    assert_is_commit,
    assert_truthful,
    assert_verifies,
    images_of,
    make_journal,
    memory_directory,
    replay_all,
    shrink_pieces,
)
from tests.fakes.spannedmirrors import EXTENT, small_extents, targets

FIVE = [14, 3, 1, 9, 7]
PLANS = st.builds(Plan, groups=st.integers(1, 2), tasks=st.integers(1, 3), unit=st.sampled_from(["batch", "op"]))


def replay(journal: Journal, mirror: Path, cells: Sequence[int], **options: object) -> None:
    """Into a mirror on such backings beside it."""
    is_new = not (mirror / "mirror.json").exists()
    backings = targets(mirror.parent, cells) if is_new and cells else []
    replay_all(journal, mirror, backings=backings, extent_bytes=EXTENT if backings else None, **options)


@settings(max_examples=12)
@given(st.integers(0, 999), PLANS, st.integers(1, 30), st.integers(5, 400), st.booleans())
def test_files_one_backing_and_five_hold_the_same(
    seed: int, plan: Plan, window_pages: int, cut: int, is_killed: bool
) -> None:
    with memory_directory() as place, small_extents(), pytest.MonkeyPatch.context() as patch:
        shrink_pieces(patch)
        history = make_history(place / "J", seed, 40)
        replay_all(history.journal, place / "flat")
        flat = Mirror(str(place / "flat")).checkpoint
        for name, cells in (("one", [34]), ("five", FIVE)):
            (place / name).mkdir()
            mirror = place / name / "M"
            with faulty(kill_at(cut) if is_killed else cut_at(cut)) as system:
                with suppress(Killed, PowerCut):
                    replay(history.journal, mirror, cells, plan=plan, window_bytes=window_pages * PAGE)
                if not is_killed:
                    system.disk.lose_all_but_newest()
            if (mirror / "mirror.json").exists():
                assert_truthful(history.journal, mirror)
            replay(history.journal, mirror, cells, plan=plan, window_bytes=window_pages * PAGE)
            assert Mirror(str(mirror)).checkpoint == flat
            assert images_of(mirror) == images_of(place / "flat") == history.states[history.commits[-1]]
            assert_verifies(mirror)


def test_a_volume_that_is_written_zeroed_and_written_elsewhere_needs_no_more_room_than_it_uses(
    tmp_path: Path,
) -> None:
    """Each turn frees what the one before took, and needs it; with a window that is larger than all turns together."""
    frames = []
    for turn in range(6):
        half = turn % 2
        frames.append([Write("a", 32 * half, bytes([turn + 1]) * 32 * PAGE), Commit()])
        frames.append([Zero("a", 32 * half, 32), Commit()])
    frames.append([Write("a", 0, b"end " * (30 * PAGE // 4)), Commit()])
    journal = make_journal(tmp_path / "J", {"a": 64 * PAGE}, frames)
    with small_extents():
        replay(journal, tmp_path / "M", [5, 3])
        assert assert_is_commit(journal, tmp_path / "M")
        assert_verifies(tmp_path / "M")


def test_backings_that_are_full_leave_the_mirror_at_a_commit_and_name_what_helps(tmp_path: Path) -> None:
    frames = [[Write("a", number * 4, bytes([number + 1]) * PAGE), Commit()] for number in range(9)]
    journal = make_journal(tmp_path / "J", {"a": 64 * PAGE}, frames)
    with small_extents():
        with pytest.raises(NoSpaceError) as full:
            replay(journal, tmp_path / "M", [5, 2], window_bytes=PAGE)
        assert f"mirrortool backing add {tmp_path}/M PATH:SIZE" in str(full.value)
        lsn = assert_is_commit(journal, tmp_path / "M")
        assert lsn == 14
        assert_verifies(tmp_path / "M")


def test_a_mirror_that_starts_over_from_a_base_does_so_on_backings(tmp_path: Path) -> None:
    from mirrortool.journal.commits import Until
    from mirrortool.journal.retention.prune import Keep, prune
    from mirrortool.replay.makebase import MakeBase

    history = make_history(tmp_path / "J", 3, 30)
    with small_extents():
        replay(history.journal, tmp_path / "M", FIVE, until=Until(lsn=history.commits[3]))
        with MakeBase(history.journal.path, Until(lsn=history.commits[-3])) as making:
            making.run()
        assert prune(history.journal.path, Keep()).plan.files
        replay(Journal(history.journal.path), tmp_path / "M", [])
        assert images_of(tmp_path / "M") == history.states[history.commits[-1]]
        assert_verifies(tmp_path / "M")
