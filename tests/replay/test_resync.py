"""A mirror starts over from a base: only what differs is written, and it ends as the primary was."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import ChangedOutsideError, CorruptJournalError, PrunedJournalError
from mirrortool.journal.bases.listing import base_path
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.journal.slots import SlotKeeper, find_slot
from mirrortool.mirror.directory import Mirror, empty_checkpoint
from mirrortool.replay import delegator
from mirrortool.replay.makebase import MakeBase
from mirrortool.replay.session import Replay
from mirrortool.replay.slotregistration import OWN_SLOT
from mirrortool.replay.startposition import choose_start
from mirrortool.store.flat import FlatStore
from mirrortool.verify import Verify
from tests.fakes.disk import PowerCut, cut_at, faulty
from tests.fakes.histories import History, make_history
from tests.fakes.journals import (
    ONE_TASK,
    PAGE,
    Commit,
    JournalMaker,
    Write,
    assert_verifies,
    images_of,
    memory_directory,
    replay_all,
    shrink_pieces,
    verified,
)
from tests.fakes.waiting import wait_until


def make_base(journal: Journal, lsn: int) -> None:
    with MakeBase(journal.path, Until(lsn=lsn)) as making:
        assert making.commit.lsn == lsn
        making.run()


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def pruned(path: Path, seed: int, *, at: float = 0.7) -> tuple[History, Path, int]:
    """The history, the mirror and the LSN of the base."""
    history = make_history(path / "journal", seed)
    early, base_lsn = path / "early", history.commits[int(len(history.commits) * at)]
    replay_all(history.journal, early, until=Until(lsn=history.commits[len(history.commits) // 5]))
    make_base(history.journal, base_lsn)
    assert prune(history.journal.path, Keep(size=0)).plan.files
    assert history.journal.file_starts()[0] > Mirror(str(early)).checkpoint.position.lsn + 1
    return history, early, base_lsn


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("seed", range(3))
def test_a_mirror_whose_files_are_gone_ends_as_the_primary(root: Path, seed: int) -> None:
    history, early, _ = pruned(root, seed)
    checkpoint = replay_all(history.journal, early)
    assert checkpoint.is_consistent
    assert checkpoint.position.lsn == history.commits[-1]
    assert images_of(early) == history.states[history.commits[-1]]
    assert_verifies(early)


@pytest.mark.usefixtures("no_sync")
def test_a_new_mirror_of_a_pruned_journal_begins_at_its_base(root: Path) -> None:
    history, _, base_lsn = pruned(root, 7)
    for lsn in [lsn for lsn in history.commits if lsn >= base_lsn][::5]:
        mirror = root / f"at{lsn}"
        replay_all(history.journal, mirror, until=Until(lsn=lsn))
        assert images_of(mirror) == history.states[lsn]
        assert_verifies(mirror)


@pytest.mark.usefixtures("no_sync")
def test_a_point_before_the_oldest_base_is_refused_and_nothing_is_made(root: Path) -> None:
    history, early, base_lsn = pruned(root, 8)
    starts = history.journal.file_starts()
    before = [lsn for lsn in history.commits if starts[0] <= lsn < base_lsn]
    assert before, "the file with the base's own commit holds earlier ones"
    was = images_of(early)
    for mirror in (root / "new", early):
        with pytest.raises(PrunedJournalError, match=f"the oldest point that can be restored is base {base_lsn}"):
            replay_all(history.journal, mirror, until=Until(lsn=before[-1]))
    assert not (root / "new").exists()
    assert images_of(early) == was
    os.unlink(base_path(history.journal, base_lsn))
    with pytest.raises(PrunedJournalError, match="no base after that"):
        replay_all(history.journal, early)


@pytest.mark.usefixtures("no_sync")
def test_only_pages_that_differ_are_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root
    maker = JournalMaker(path / "journal", {"a": 400 * PAGE}, file_bytes=8000)
    for page in range(300):
        maker.frame(Write("a", page, random.Random(page).randbytes(PAGE)), Commit())
    replay_all(maker.journal, path / "early")
    at = [maker.frame(Write("a", page, b"new" + bytes(PAGE - 3)), Commit()) for page in (3, 99, 250)]
    for _ in range(30):
        maker.frame(Write("a", 399, random.Random(1).randbytes(PAGE)), Commit())
    journal = maker.close()
    Path(journal.path, "recorder.json").unlink()
    make_base(journal, at[-1].lsn)
    prune(journal.path, Keep(size=0))
    written: list[int] = []
    write, zero = FlatStore.write, FlatStore.zero
    monkeypatch.setattr(
        FlatStore, "write", lambda self, runs: (written.extend(run[2] // PAGE for run in runs), write(self, runs))[1]
    )
    monkeypatch.setattr(FlatStore, "zero", lambda self, *run: (written.append(run[1]), zero(self, *run))[1])
    replay_all(journal, path / "early")
    assert sum(written) == 3 + 1


@pytest.mark.usefixtures("no_sync")
def test_a_mirror_that_held_more_than_its_checkpoint_gets_every_page(root: Path) -> None:
    """Its table does not say what the pages are, as a replay was killed: a page may be newer, and equal by its sum."""
    history, early, _ = pruned(root, 9)
    mirror = Mirror(str(early))
    mirror.save_checkpoint(mirror.checkpoint.reaching(mirror.checkpoint.position.lsn + 9))
    for kept in mirror.kept:  # whatever it holds
        path = Path(mirror.volume_path(kept))
        path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    replay_all(history.journal, early)
    assert images_of(early) == history.states[history.commits[-1]]
    assert_verifies(early)


def small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_pieces(monkeypatch)
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 8)
    monkeypatch.setattr("mirrortool.replay.resync.FRAME_BYTES", 4 * PAGE)


def resync(history: History, mirror: Path, until: Until | None = None) -> None:
    replay_all(history.journal, mirror, plan=ONE_TASK, window_bytes=8 * PAGE, until=until)


@pytest.mark.parametrize(
    ("seed", "step"), [(0, 31), (1, 31), *(pytest.param(seed, 3, marks=pytest.mark.soak) for seed in range(8))]
)
def test_a_power_cut_anywhere_in_it_is_mended(
    root: Path, seed: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any two of them: of what was not durable any blocks are lost, and the next call ends right."""
    small_scale(monkeypatch)
    history, early, _ = pruned(root, 20 + seed)
    was = Mirror(str(early)).checkpoint
    mirror, draw = root / "mirror", random.Random(seed)
    for number in range(1, 400, step):
        shutil.rmtree(mirror, ignore_errors=True)
        shutil.copytree(early, mirror)
        for each in (number, draw.randrange(1, 200)):
            with faulty(cut_at(each)) as system:
                try:
                    resync(history, mirror)
                except PowerCut:
                    pass
            system.disk.cut_power(draw)
            _assert_truthful(history, mirror, was.position.lsn)
        resync(history, mirror)
        assert images_of(mirror) == history.states[history.commits[-1]]
        assert_verifies(mirror)


def _assert_truthful(history: History, mirror: Path, before_lsn: int) -> None:
    checkpoint = Mirror(str(mirror)).checkpoint
    lsn = checkpoint.position.lsn
    if checkpoint.is_consistent:
        assert images_of(mirror) == history.states[lsn]
    else:
        assert checkpoint.resync_lsn or lsn > before_lsn
    assert verified(mirror).is_right


@pytest.mark.parametrize("kept", [True, False])
def test_it_continues_with_its_own_base_or_writes_all_of_another(
    root: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first base gave a page may be what the second takes back: the table cannot know."""
    small_scale(monkeypatch)
    history, early, base_lsn = pruned(root, 30, at=0.5)
    later = history.commits[int(len(history.commits) * 0.8)]
    with faulty(cut_at(60)):
        try:
            resync(history, early)
        except PowerCut:
            pass
    assert Mirror(str(early)).checkpoint.resync_lsn == base_lsn
    make_base(history.journal, later)
    if not kept:
        os.unlink(base_path(history.journal, base_lsn))
    checkpoint = Mirror(str(early)).checkpoint
    start = choose_start(history.journal, checkpoint)
    assert start.base is not None
    assert (start.base.lsn, start.ignores_table) == ((base_lsn, False) if kept else (later, True))
    assert choose_start(history.journal, replace(checkpoint, resync_all=True)).ignores_table, "it went on as it began"
    resync(history, early)
    assert images_of(early) == history.states[history.commits[-1]]
    assert_verifies(early)


def test_a_damaged_base_stops_it_and_another_helps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_scale(monkeypatch)
    history, early, _ = pruned(root, 40, at=0.5)
    later = history.commits[int(len(history.commits) * 0.8)]
    make_base(history.journal, later)
    path = Path(base_path(history.journal, later))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptJournalError, match="the base is damaged"):
        resync(history, early)
    assert not Mirror(str(early)).checkpoint.is_consistent
    path.unlink()
    resync(history, early)
    assert Mirror(str(early)).checkpoint.commit_lsn == history.commits[-1]
    assert images_of(early) == history.states[history.commits[-1]]


@pytest.mark.usefixtures("no_sync")
def test_a_mirror_changed_outside_is_not_overwritten(root: Path) -> None:
    history, early, _ = pruned(root, 41)
    mirror = Mirror(str(early))
    path = Path(mirror.volume_path(mirror.kept[0]))
    path.write_bytes(b"!" * path.stat().st_size)
    (early / "seen.json").unlink()  # and its time tells nothing
    with pytest.raises(ChangedOutsideError, match="not as the last replay left it"):
        replay_all(history.journal, early)
    assert not Mirror(str(early)).checkpoint.resync_lsn


@pytest.mark.usefixtures("no_sync")
def test_the_slot_keeps_the_base_while_the_mirror_starts_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_scale(monkeypatch)
    history, early, base_lsn = pruned(root, 42, at=0.5)
    journal = history.journal
    with Replay(journal.path, str(early), plan=ONE_TASK, window_bytes=8 * PAGE, slot=OWN_SLOT) as replay:
        name = replay.slot
        assert name
        slot = find_slot(journal, name)
        assert slot and slot.is_lost and slot.resync_lsn == base_lsn and slot.holds_back
        make_base(journal, history.commits[-1])
        found = prune(journal.path, Keep(size=0))
        assert not found.plan.lost
        assert Path(base_path(journal, base_lsn)).exists()
        replay.run()
    slot = find_slot(journal, name)
    assert slot and not slot.is_lost and not slot.resync_lsn
    assert slot.position.lsn == history.commits[-1]
    assert prune(journal.path, Keep(size=0)).plan.bases == (base_lsn,)
    assert images_of(early) == history.states[history.commits[-1]]


@pytest.mark.usefixtures("no_sync")
def test_who_registers_at_a_position_that_is_gone_is_told(root: Path) -> None:
    history, early, base_lsn = pruned(root, 43)
    checkpoint = Mirror(str(early)).checkpoint
    with Replay(history.journal.path, str(early), slot="m1") as replay:
        assert replay.slot == "m1"
    slot = find_slot(history.journal, "m1")
    assert slot
    keeper = SlotKeeper(history.journal, replace(slot, name="m2", position=checkpoint.position, resync_lsn=0))
    assert keeper.was_lost
    keeper.resync(base_lsn)
    with pytest.raises(PrunedJournalError):
        keeper.resync(base_lsn + 1)


@pytest.mark.usefixtures("no_sync")
def test_what_reads_less_is_chosen(root: Path) -> None:
    """Of a whole journal with bases: a new mirror starts where least is to be read, another one continues."""
    history = make_history(root / "journal", 44)
    journal, commits = history.journal, history.commits
    empty = empty_checkpoint(journal)
    assert choose_start(journal, empty).base is None
    make_base(journal, commits[-2])
    make_base(journal, commits[10])
    start = choose_start(journal, empty)
    assert start.base is not None and start.base.lsn == commits[-2]
    start = choose_start(journal, empty, commits[-3])
    assert start.base is None or start.base.lsn == commits[10]
    assert choose_start(journal, empty, commits[2]).base is None
    assert choose_start(journal, empty, last_ns=0).base is None
    replay_all(journal, root / "mirror", until=Until(lsn=commits[3]))
    assert choose_start(journal, Mirror(str(root / "mirror")).checkpoint).base is None


@pytest.mark.usefixtures("no_sync")
def test_verify_takes_its_sums_from_the_base_where_the_journal_was_pruned(root: Path) -> None:
    history, early, _ = pruned(root, 45)
    before = verified(early)  # at a position that the journal lost: by its own table alone
    assert before.is_right and before.journal_agrees is None
    replay_all(history.journal, early)
    with Verify(str(early), journal_path=history.journal.path) as verify:
        assert verify.run().is_right
    mirror = Mirror(str(early))
    path = Path(mirror.volume_path(mirror.kept[0]))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with Verify(str(early), journal_path=history.journal.path) as verify:
        assert verify.run().bad_pages == 1


@pytest.mark.usefixtures("no_sync")
def test_a_follower_begins_at_a_base(root: Path) -> None:
    history, early, base_lsn = pruned(root, 46)
    with Replay(history.journal.path, str(early), plan=ONE_TASK, follow=True, slot=OWN_SLOT) as replay:
        assert replay.start.base and replay.start.base.lsn == base_lsn
        follower = threading.Thread(target=replay.run)
        follower.start()
        wait_until(lambda: Mirror(str(early)).checkpoint.position.lsn == history.commits[-1])
        replay.cancel()
        follower.join(20)
    assert images_of(early) == history.states[history.commits[-1]]
    slot = find_slot(history.journal, replay.slot or "")
    assert slot and slot.position.lsn == history.commits[-1] and not slot.is_lost
