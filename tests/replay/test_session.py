"""A replay's beginning and end: the target, the guards around it, what is refused, and what is reported."""

import threading

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import (
    CorruptJournalError,
    ForkedJournalError,
    HostError,
    InputOutputError,
    JournalError,
    LockedError,
    NotComparableError,
    OtherJournalError,
    PastPointError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.commits import Until
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.checkpoint import describe
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.engine import Plan
from mirrortool.replay.session import Replay
from tests.fakes.journals import (
    PAGE,
    START_NS,
    Commit,
    JournalMaker,
    Resize,
    Write,
    assert_is_commit,
    assert_verifies,
    images_of,
    make_journal,
    replay_all,
)
from tests.fakes.volumes import loop_device


def page_of(number):
    return bytes([number % 255 + 1]) * PAGE


FRAMES = [
    [Write("a", 0, page_of(1)), Commit()],  # LSN 2
    [Write("a", 1, page_of(2)), Commit("release")],  # 4
    [Write("a", 0, page_of(3)), Commit()],  # 6
    [Write("a", 2, page_of(4)), Commit("release")],  # 8
]


@pytest.fixture
def journal(tmp_path):
    return make_journal(tmp_path / "journal", {"a": 10 * PAGE}, FRAMES)


@pytest.fixture
def mirror(tmp_path):
    return tmp_path / "mirror"


@pytest.mark.parametrize(
    ("until", "lsn"),
    [
        (None, 8),
        (Until(lsn=2), 2),
        (Until(lsn=3), 2),
        (Until(lsn=5), 4),
        (Until(is_newest=True), 8),
        (Until(mark="release"), 8),
        (Until(time_ns=START_NS + 3_500_000), 6),
    ],
)
def test_the_target_is_the_last_commit_at_or_before(journal, mirror, until, lsn):
    assert replay_all(journal, mirror, until=until).position.lsn == lsn
    assert assert_is_commit(journal, mirror) == lsn


@pytest.mark.parametrize(
    "until", [Until(lsn=1), Until(lsn=9), Until(time_ns=5), Until(time_ns=1 << 62), Until(mark="nothing")]
)
def test_no_commit_at_that_point_is_a_usage_error_and_makes_no_mirror(journal, mirror, until):
    with pytest.raises(UsageError):
        replay_all(journal, mirror, until=until)
    assert not mirror.exists()


def test_a_journal_without_a_commit_is_not_comparable_yet(tmp_path, mirror):
    journal = make_journal(tmp_path / "j", {"a": PAGE}, [[Write("a", 0, page_of(1))]])
    with pytest.raises(NotComparableError):
        replay_all(journal, mirror)
    assert not mirror.exists()


def test_a_mirror_does_not_go_back(journal, mirror):
    replay_all(journal, mirror, until=Until(lsn=6))
    with pytest.raises(PastPointError, match="LSN 6") as caught:
        replay_all(journal, mirror, until=Until(lsn=4))
    assert "--until 4" in caught.value.remedy
    assert main(["replay", journal.path, str(mirror), "--until", "4", "--quiet"]) == 23
    assert assert_is_commit(journal, mirror) == 6


def test_going_to_where_it_is_changes_nothing(journal, mirror):
    replay_all(journal, mirror, until=Until(lsn=6))
    before = images_of(mirror)
    assert replay_all(journal, mirror, until=Until(lsn=7)).position.lsn == 6
    assert images_of(mirror) == before
    assert_verifies(mirror)


def test_an_interrupted_replay_refuses_to_stop_before_what_the_store_may_hold(journal, mirror):
    replay_all(journal, mirror, until=Until(lsn=2))
    opened = Mirror(str(mirror))
    opened.save_checkpoint(opened.checkpoint.reaching(8))
    with pytest.raises(PastPointError):
        replay_all(journal, mirror, until=Until(lsn=6))
    assert not Mirror(str(mirror)).checkpoint.is_consistent
    assert replay_all(journal, mirror, until=Until(lsn=8)).is_consistent
    assert_verifies(mirror)


def test_only_one_replay_at_a_time(journal, mirror):
    with Replay(journal.path, str(mirror)), pytest.raises(LockedError):
        Replay(journal.path, str(mirror))
    assert replay_all(journal, mirror).is_consistent, "the lock is given back"


def test_another_journal_is_refused(journal, mirror, tmp_path):
    other = make_journal(tmp_path / "other", {"a": 10 * PAGE}, FRAMES)
    replay_all(journal, mirror, until=Until(lsn=2))
    with pytest.raises(OtherJournalError):
        replay_all(other, mirror)
    assert assert_is_commit(journal, mirror) == 2


def test_a_forked_history_is_refused(tmp_path, mirror):
    """The same journal, restored from a backup and recorded on: the mirror was further already."""
    maker = JournalMaker(tmp_path / "journal", {"a": 10 * PAGE})
    maker.frame(Write("a", 0, page_of(1)), Commit())
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    backup = file.read_bytes()
    maker.frame(Write("a", 1, page_of(2)), Commit())
    replay_all(maker.journal, mirror)
    before = images_of(mirror)
    file.write_bytes(backup)
    with pytest.raises(JournalError):
        replay_all(maker.journal, mirror)
    maker.writer.abandon()
    with JournalReader(maker.journal) as end:
        while end.next_header():
            pass
        maker.writer, maker._state_sum = JournalWriter(maker.journal, end), end.state_sum
    maker._sums.pop(1)
    maker.frame(Write("a", 2, page_of(9)), Commit())
    with pytest.raises(ForkedJournalError):
        replay_all(maker.close(), mirror)
    assert images_of(mirror) == before


def test_targets_by_name_are_used_and_cannot_be_moved(journal, mirror, tmp_path):
    image = str(tmp_path / "elsewhere.img")
    replay_all(journal, mirror, targets={"a": image}, until=Until(lsn=2))
    replay_all(journal, mirror, targets={"a": image})
    assert assert_is_commit(journal, mirror) == 8
    for targets in ({"a": str(tmp_path / "third.img")}, {"b": image}):
        with pytest.raises(UsageError):
            replay_all(journal, mirror, targets=targets)


def test_a_target_with_data_is_refused_and_left_alone(journal, mirror, tmp_path):
    image = tmp_path / "precious.img"
    image.write_bytes(b"precious" * 1000)
    with pytest.raises(UnusableVolumeError):
        replay_all(journal, mirror, targets={"a": str(image)})
    assert image.read_bytes() == b"precious" * 1000
    with Replay(journal.path, str(mirror), targets={"a": str(image)}, overwrite=True) as replay:
        replay.run()
    assert assert_is_commit(journal, mirror) == 8


@pytest.mark.parametrize(
    "plan",
    [Plan(ranges="none"), Plan(unit="page"), Plan(groups=0), Plan(tasks=0), Plan(groups=257), Plan(256, 256, 256)],
)
def test_a_plan_that_cannot_be_carried_out_makes_no_mirror(journal, mirror, plan):
    with pytest.raises(UsageError):
        replay_all(journal, mirror, plan=plan)
    assert not mirror.exists()


def test_damage_behind_the_newest_commit_is_reported_and_the_mirror_is_at_that_commit(journal, mirror, tmp_path):
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    data = file.read_bytes()
    file.write_bytes(data[:-40])
    with pytest.raises(CorruptJournalError):
        replay_all(journal, mirror)
    assert Mirror(str(mirror)).checkpoint.position.lsn == 6
    with pytest.raises(CorruptJournalError):
        replay_all(journal, mirror)
    file.write_bytes(data)
    assert assert_is_commit(journal, mirror) == 6
    replay_all(journal, mirror)
    assert assert_is_commit(journal, mirror) == 8


def test_damage_is_named_each_time_also_when_it_ended_within_a_commit(tmp_path, mirror):
    """A commit larger than the window, damaged near its end: the mirror is between two commits, and says so."""
    frames = [[Commit()], *([Write("a", n, page_of(n))] for n in range(30)), [Commit()]]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, frames)
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    data = file.read_bytes()
    with Replay(journal.path, str(mirror), window_bytes=4 * PAGE) as replay:
        file.write_bytes(data[: len(data) - 400] + bytes(400))
        with pytest.raises(CorruptJournalError):
            replay.run()
    assert not Mirror(str(mirror)).checkpoint.is_consistent
    for _ in range(2):
        with pytest.raises(CorruptJournalError):
            replay_all(journal, mirror, window_bytes=4 * PAGE)
        assert "rolling forward" in describe(Mirror(str(mirror)).checkpoint)
    file.write_bytes(data)
    assert replay_all(journal, mirror).is_consistent
    assert assert_is_commit(journal, mirror) == 32


def test_damage_is_named_also_when_it_hides_the_commit_that_a_crashed_replay_was_going_to(tmp_path, mirror):
    frames = [[Commit()], *([Write("a", n, page_of(n))] for n in range(30)), [Commit()]]
    journal = make_journal(tmp_path / "journal", {"a": 40 * PAGE}, frames)
    replay_all(journal, mirror, until=Until(lsn=1))
    opened = Mirror(str(mirror))
    opened.save_checkpoint(opened.checkpoint.reaching(32))
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 400] + bytes(400))
    with pytest.raises(CorruptJournalError):
        replay_all(journal, mirror)
    assert not Mirror(str(mirror)).checkpoint.is_consistent
    file.write_bytes(data)
    assert replay_all(journal, mirror).is_consistent
    assert assert_is_commit(journal, mirror) == 32


def test_damage_in_the_body_of_a_frame_that_no_commit_covers_is_reported(tmp_path, mirror):
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    maker.frame(Write("a", 0, page_of(1)), Commit())
    maker.frame(*(Write("a", n, page_of(n)) for n in range(10)))
    journal = maker.close()
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + b"?")
    with pytest.raises(CorruptJournalError):
        replay_all(journal, mirror)
    assert Mirror(str(mirror)).checkpoint.position.lsn == 2


def test_a_mirror_between_two_commits_says_that_it_waits_for_the_second(tmp_path, mirror):
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    maker.frame(Write("a", 0, page_of(1)), Commit())
    maker.frame(Write("a", 1, page_of(2)))
    replay_all(maker.journal, mirror)
    opened = Mirror(str(mirror))
    opened.save_checkpoint(opened.checkpoint.reaching(3))
    with pytest.raises(NotComparableError, match="rolling forward"):
        replay_all(maker.journal, mirror)
    maker.frame(Commit())
    assert replay_all(maker.close(), mirror).position.lsn == 4
    assert_verifies(mirror)


def test_until_an_earlier_commit_does_not_mind_later_damage(journal, mirror, tmp_path):
    file = tmp_path / "journal" / "files" / f"{1:016x}.mj"
    file.write_bytes(file.read_bytes()[:-40])
    assert replay_all(journal, mirror, until=Until(lsn=4)).position.lsn == 4


def test_statistics_add_up(journal, mirror):
    with Replay(journal.path, str(mirror), plan=Plan(groups=3, tasks=2)) as replay:
        assert replay.statistics().progress.lsn == 0
        replay.run()
        now = replay.statistics()
    assert now.progress.lsn == 8
    assert now.progress.operations == 8
    assert now.progress.payload_bytes == 4 * PAGE
    assert now.in_flight.pending_units == 0
    assert len(now.groups) == 3


def test_threads_end_with_the_replay(journal, mirror):
    before = threading.active_count()
    with Replay(journal.path, str(mirror), plan=Plan(groups=4, tasks=4)) as replay:
        replay.run()
        assert threading.active_count() == before + 16
    assert threading.active_count() == before


def test_threads_and_locks_end_when_opening_fails(journal, mirror):
    replay_all(journal, mirror)
    before = threading.active_count()
    with pytest.raises(PastPointError):
        replay_all(journal, mirror, until=Until(lsn=2))
    assert threading.active_count() == before
    assert replay_all(journal, mirror).is_consistent


GROWING = [
    [Write("a", 0, page_of(1)), Commit()],  # LSN 2
    [Resize("a", 20 * PAGE), Write("a", 15, page_of(2)), Commit()],  # 5
]


def test_journal_may_not_ask_for_more_than_max_size(tmp_path, mirror):
    journal = make_journal(tmp_path / "journal", {"a": 10 * PAGE}, GROWING)
    with pytest.raises(UnusableVolumeError, match="--max-size"):
        replay_all(journal, mirror, max_bytes=10 * PAGE)
    assert assert_is_commit(journal, mirror) == 2
    with pytest.raises(UnusableVolumeError, match="--max-size"):
        replay_all(journal, tmp_path / "other", max_bytes=10 * PAGE - 1)
    assert not (tmp_path / "other").exists()
    replay_all(journal, mirror, max_bytes=20 * PAGE)
    assert assert_is_commit(journal, mirror) == 5


def test_volume_does_not_outgrow_its_device(tmp_path, mirror):
    journal = make_journal(tmp_path / "journal", {"a": 10 * PAGE}, GROWING)
    with loop_device(tmp_path, 12 * PAGE) as device:
        with pytest.raises(UnusableVolumeError, match="its device or export has"):
            replay_all(journal, mirror, targets={"a": device})
        checkpoint = Mirror(str(mirror)).checkpoint
        assert (checkpoint.is_consistent, checkpoint.position.lsn) == (True, 2)


def test_volume_may_not_be_larger_even_inside_one_frame(tmp_path, mirror):
    frames = [[Write("a", 0, page_of(1)), Commit()], [Resize("a", 1 << 47), Resize("a", 10 * PAGE), Commit()]]
    journal = make_journal(tmp_path / "journal", {"a": 10 * PAGE}, frames)
    with pytest.raises(UnusableVolumeError, match="--max-size"):
        replay_all(journal, mirror)
    assert assert_is_commit(journal, mirror) == 2


@pytest.mark.parametrize("lose", ["unlink", "replace"])
def test_a_volume_that_was_deleted_meanwhile_holds_no_commit(journal, mirror, lose):
    """What is written to a file without a name, nobody finds; so no checkpoint says that it is there."""
    replay_all(journal, mirror, until=Until(lsn=2))
    with Replay(str(journal.path), str(mirror)) as replay:
        image = mirror / "volumes" / "a.img"
        if lose == "replace":
            (mirror / "other").write_bytes(image.read_bytes())
            (mirror / "other").rename(image)
        else:
            image.unlink()
        kind = InputOutputError if lose == "replace" else HostError
        with pytest.raises(kind, match=r"deleted or replaced|No such file"):
            replay.run()
    assert Mirror(str(mirror)).checkpoint.position.lsn == 2
