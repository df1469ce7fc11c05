"""A journal without room: clients are refused and continue later, or are served without it, and it catches up."""

from __future__ import annotations

import os
import random
import threading
from typing import Any

import pytest

from mirrortool import files
from mirrortool.change import Change
from mirrortool.errors import MirrortoolError, NoSpaceError, NotComparableError
from mirrortool.journal import format as layout
from mirrortool.journal.commits import commits
from mirrortool.record import recorder as recorder_module
from mirrortool.record.detach import WhenFull
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.mark import mark
from mirrortool.record.missingsegments import NotedSegments
from mirrortool.record.recorder import Recorder
from mirrortool.store import parallelread
from tests.fakes.disk import faulty
from tests.fakes.recorders import based, quiet_recorder, small_scale
from tests.fakes.volumes import PAGE, Primary, adopt, fill_up, loop_mount, make_primary, pattern
from tests.record.fulljournal import RESERVE, SEGMENT, SIZE, Client, Full, clients_moment, detaching, noted


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_scale(monkeypatch)
    monkeypatch.setattr(parallelread, "PIECE_BYTES", 64 << 10)  # a segment, which is read whole, has thousands of pages
    monkeypatch.setattr(layout, "FILE_BYTES_TARGET", 256 << 10)


@pytest.fixture
def primary(directory: str) -> Primary:
    """Three segments and a little, sparse, wholly journaled."""
    return based(make_primary(directory, {"a": SIZE, "b": pattern(2, 5 * PAGE)}))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


def test_with_stop_a_change_is_refused_and_works_later(primary: Primary, full: Full) -> None:
    with quiet_recorder(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"before")
        full.is_full = True
        before = recorder.read("a", 0, 100)
        for _ in range(2):
            with pytest.raises(NoSpaceError):
                recorder.write("a", 0, b"refused")
            with pytest.raises(NoSpaceError):
                recorder.zero("a", 0, SIZE)
        assert recorder.read("a", 0, 100) == before
        recorder.flush()  # what was acknowledged is durable, though there is no room for the COMMIT
        assert recorder.statistics().durable_lsn == recorder.statistics().head_lsn
        recorder.write_back()
        full.is_full = False
        client.write("a", 50, b"after")
        recorder.close()
    client.check_everywhere()


def test_with_detach_the_client_goes_on_and_the_journal_catches_up(primary: Primary, full: Full) -> None:
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"journaled")
        recorder.commit("before")
        full.is_full = True
        head = recorder.statistics().head_lsn
        client.write("a", 3, b"detached")
        client.zero("a", SEGMENT - 3 * PAGE, 2 * PAGE)
        client.zero("a", 2 * SEGMENT, SEGMENT)
        client.write("b", 0, b"B" * 1000)
        client.check(recorder)
        recorder.flush()
        recorder.write_back(checkpoint=True)
        assert recorder.statistics().head_lsn <= head + 1
        assert "no room" in recorder.statistics().problem
        with pytest.raises(NotComparableError):
            recorder.commit("between")
        assert not recorder.attach()
        full.is_full = False
        client.write("a", SEGMENT + 5, b"still detached")
        assert recorder.attach()
        assert not os.path.exists(os.path.join(primary.journal_path, "detached.json"))
        assert os.path.getsize(os.path.join(primary.journal_path, "reserve")) == RESERVE
        assert recorder.statistics().problem == ""
        client.write("a", 2, b"journaled again")
        recorder.commit("after")
        recorder.close()
    assert [commit.name for commit in commits(primary.journal) if commit.name] == ["before", "after"]
    client.check_everywhere()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("when_full", list(WhenFull))
def test_a_detached_recorder_that_ends_is_continued_by_the_next(
    primary: Primary, full: Full, clean: bool, when_full: WhenFull
) -> None:
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"journaled")
        full.is_full = True
        client.write("a", 3, b"detached")
        client.write("a", 2 * SEGMENT - 2, b"two segments")
        if clean:
            recorder.close()
    assert noted(primary) == [0, 1, 2]
    with quiet_recorder(primary, when_full=when_full, reserve=RESERVE) as recorder:
        client.recorder = recorder
        client.check(recorder)
        client.write("a", 9, b"still")
        full.is_full = False
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_mark_of_a_journal_that_lacks_something_is_refused(primary: Primary, full: Full) -> None:
    """Also when no recorder is running."""
    with detaching(primary) as recorder:
        full.is_full = True
        recorder.write("a", 3, b"detached")
        recorder.close()
    full.is_full = False
    with pytest.raises(NotComparableError):
        mark(primary.journal_path, "now")


def test_a_base_that_ends_while_detached_makes_no_commit(directory: str, full: Full) -> None:
    primary = make_primary(directory, {"a": pattern(1, 30 * PAGE), "b": pattern(2, 9 * PAGE)})
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"detached")
        full.is_full = False
        InitialScan(recorder).run()
        assert not recorder.incomplete
        assert not list(commits(primary.journal))
        client.write("a", 5 * PAGE, b"detached")
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_segment_is_noted_durably_before_its_first_byte_changes(
    primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    with detaching(primary) as recorder:
        real = recorder.store.write

        def write(runs: Any) -> None:
            if full.is_full:
                assert {page * PAGE // SEGMENT for page, _, _ in runs} <= set(noted(primary))
            real(runs)

        monkeypatch.setattr(recorder.store, "write", write)
        full.is_full = True
        recorder.write("a", 3, b"detached")
        recorder.write("a", SEGMENT + 3, b"detached")
        assert noted(primary) == [0, 1]


def test_the_checkpoint_covers_everything_before_a_segment_is_noted(primary: Primary, full: Full) -> None:
    """Else recovery would write an older page over the newer one, and the journal never hear of it."""
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"older")
        full.is_full = True
        client.write("a", 0, b"newer")
    with detaching(primary) as recorder:
        assert recorder.redone == 0
        client.recorder = recorder
        client.check(recorder)


def test_detached_again_while_it_catches_up(primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was journaled since a segment caught up is never redone over what changed without the journal later."""
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"one")
        client.write("a", SEGMENT, b"one")
        full.is_full = False
        detachment = recorder._detachment
        real = detachment._capture_segment
        captured = []

        def capture(segment: int) -> None:
            if captured == [0]:
                captured.append(-1)
                with clients_moment(recorder):
                    client.write("a", 0, b"two: journaled")
                    full.is_full = True
                    client.write("a", 7, b"three: detached")
            real(segment)
            captured.append(segment)

        monkeypatch.setattr(detachment, "_capture_segment", capture)
        assert not recorder.attach()
        assert set(noted(primary)) >= {0}
    with detaching(primary) as recorder:
        client.recorder = recorder
        client.check(recorder)
        full.is_full = False
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_change_of_caught_up_and_other_segments_is_neither_lost_nor_split(
    primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"one")
        client.write("a", 2 * SEGMENT, b"one")
        full.is_full = False
        detachment, straddled = recorder._detachment, []
        real = detachment._capture_segment

        def capture(segment: int) -> None:
            real(segment)
            if not straddled:  # segment 0 has caught up, 1 never lacked anything, 2 does
                straddled.append(segment)
                with clients_moment(recorder):
                    client.write("a", SEGMENT - 700, b"S" * 1400)  # 0 and 1: journaled
                    client.write("a", 2 * SEGMENT - 700, b"T" * 1400)  # 1 and 2: neither one nor the other

        monkeypatch.setattr(detachment, "_capture_segment", capture)
        while not recorder.attach():
            pass
        recorder.close()
    client.check_everywhere()


def random_load(client: Client, chance: random.Random, steps: int) -> None:
    """Changes at the edges of all segments, so that many touch two; flushes and write-backs between them."""
    for _ in range(steps):
        offset = chance.choice([0, SEGMENT, 2 * SEGMENT, 3 * SEGMENT - 1000]) + chance.choice([-PAGE, -700, 0, 9])
        offset = max(0, offset)
        step, length = chance.random(), min(chance.choice([5, PAGE, 1400]), SIZE - offset)
        if step < 0.7:
            client.write("a", offset, chance.randbytes(length))
        elif step < 0.8:
            client.zero("a", offset, length)
        elif step < 0.9:
            client.recorder.flush()
        else:
            client.recorder.write_back(checkpoint=step < 0.95)
        with pytest.raises(NotComparableError):
            client.recorder.commit("between")


@pytest.mark.parametrize("seed", range(4))
def test_catching_up_under_load(primary: Primary, full: Full, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients change segments that have caught up, whose pages then wait, those that have not, and both at once."""
    chance = random.Random(seed)
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"journaled")
        before = recorder.commit("before").lsn
        full.is_full = True
        client.write("a", 0, b"detached")
        random_load(client, chance, 12)
        full.is_full = False
        real = recorder._detachment._capture_segment
        is_clients = False
        heads = []

        def capture(segment: int) -> None:
            nonlocal is_clients
            if not is_clients:  # else a client's own change needs the segment
                is_clients = True
                with clients_moment(recorder):
                    random_load(client, chance, 8)
                is_clients = False
                heads.append(recorder.statistics().head_lsn)
            real(segment)

        monkeypatch.setattr(recorder._detachment, "_capture_segment", capture)
        for _ in range(8):  # of which one ends it, as changes elsewhere are journaled meanwhile
            if recorder.attach():
                break
        recorder.commit("after")
        recorder.close()
    assert len(heads) > 1
    assert not [commit.lsn for commit in commits(primary.journal) if before < commit.lsn <= heads[-1]]
    client.check_everywhere()


def test_a_client_that_detaches_as_catching_up_ends_is_noted(
    primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of one detachment must not remove what the next one noted."""
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"one")
        full.is_full = False
        real = recorder._volumes.write_back
        done = []

        def write_back(**options: Any) -> None:
            real(**options)
            if recorder._detachment.segment_count < 0 and not done:
                done.append(True)
                full.is_full = True
                client.write("a", SEGMENT, b"two")

        monkeypatch.setattr(recorder._volumes, "write_back", write_back)
        recorder.attach()
        assert done
        assert noted(primary) == [1]
    with detaching(primary) as recorder:
        full.is_full = False
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_what_is_journaled_as_captured_is_durable_on_the_volume_first(
    primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never redone, so a power cut must not remove it from the volume."""
    with faulty(lambda _: None) as system, detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"detached")
        assert primary.paths["a"] in system.disk.dirty()
        full.is_full = False
        real = recorder._journal.append
        seen = []

        def append(*arguments: Any, captured: bool) -> None:
            if captured:
                seen.append(primary.paths["a"] in system.disk.dirty())
            real(*arguments, captured=captured)

        monkeypatch.setattr(recorder._journal, "append", append)
        recorder.attach()
        assert seen and not any(seen)


@pytest.mark.parametrize("what", ["recorder.json.new", "sums"])
def test_no_room_for_a_checkpoint_is_no_room_in_the_journal(
    primary: Primary, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever meets the end of the space first: clients are served on, with what the reserve gives."""
    is_full = False
    real = files.File._call

    def call(file: files.File, doing: str, *arguments: Any) -> Any:
        has_reserve = os.path.exists(os.path.join(primary.journal_path, "reserve"))
        name = file.path.removeprefix(primary.journal_path)
        if doing == "write" and is_full and ((has_reserve and what in name) or name.endswith(".mj")):
            raise NoSpaceError("full", where=file.path)
        return real(file, doing, *arguments)

    monkeypatch.setattr(files.File, "_call", call)
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"journaled")
        is_full = True
        with pytest.raises(NoSpaceError):
            recorder.write_back(checkpoint=True)
        client.write("a", 5, b"served")
        assert noted(primary) == [0]
        assert "journal has no room" in recorder.statistics().problem
        is_full = False
        recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_volume_without_room_is_no_reason_to_detach(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", 0, b"journaled")

        def write(_: object) -> None:
            raise NoSpaceError("full", where=primary.paths["a"])

        with monkeypatch.context() as patch:
            patch.setattr(recorder.store, "write", write)
            for _ in range(2):
                with pytest.raises(NoSpaceError):
                    recorder.write_back()
                with pytest.raises(NoSpaceError):
                    recorder.write("a", 0, b"refused")
            recorder.flush()
            client.check(recorder)
        recorder.write_back()
        client.write("a", 3, b"taken")
        assert not os.path.exists(os.path.join(primary.journal_path, "detached.json"))
        recorder.close()
    client.check_everywhere()


def test_a_flush_makes_what_changed_without_the_journal_durable(primary: Primary, full: Full) -> None:
    with faulty(lambda _: None) as system, detaching(primary) as recorder:
        full.is_full = True
        recorder.write("a", 0, b"detached")
        recorder.flush()
        assert primary.paths["a"] not in system.disk.dirty()


def test_a_huge_zero_without_the_journal_costs_segments(
    primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are noted at once, though they are zeroed in steps."""
    monkeypatch.setattr(recorder_module, "_ZERO_PAGES", SEGMENT // PAGE)
    real, added = NotedSegments.add, []

    def add(noted: NotedSegments, segments: set[int]) -> None:
        added.append(segments - noted.segments)
        real(noted, segments)

    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        client.write("a", SEGMENT, b"x")
        full.is_full = True
        client.write("a", 0, b"x")  # the first that is noted
        monkeypatch.setattr(NotedSegments, "add", add)
        client.zero("a", 0, SIZE)
        assert sum(map(bool, added)) == 2  # the last page, cut short, comes by itself
        assert noted(primary) == [0, 1, 2, 3]
        full.is_full = False
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_changes_at_random_while_it_is_full_now_and_then(primary: Primary, full: Full) -> None:
    """Cleanly stopped, dropped, detached and attached in any order."""
    chance = random.Random(5)
    client = Client(primary, None)  # type: ignore[arg-type]  # each start gives it one
    for _ in range(12):
        with detaching(primary) as recorder:
            client.recorder = recorder
            for _ in range(chance.randrange(25)):
                full.is_full = chance.random() < 0.4
                offset = chance.choice([0, SEGMENT - 1000, 2 * SEGMENT - 100, SIZE - 5000]) + chance.randrange(3000)
                step = chance.random()
                if step < 0.5:
                    client.write("a", offset, chance.randbytes(chance.randrange(1, 2000)))
                elif step < 0.6:
                    client.zero("a", offset, chance.choice([100, 3000, min(SIZE - offset, SEGMENT)]) % (SIZE - offset))
                elif step < 0.7:
                    recorder.flush()
                elif step < 0.8:
                    recorder.write_back(checkpoint=chance.random() < 0.5)
                else:
                    recorder.attach()
            if chance.random() < 0.5:
                recorder.close()
    full.is_full = False
    with detaching(primary) as recorder:
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_full_file_system_under_load(directory: str) -> None:
    """A real one: whatever meets the end of the space first, a frame, the sums or recorder.json."""
    volume = os.path.join(directory, "a")
    with loop_mount(directory, 24 << 20) as mounted:
        with open(volume, "wb") as file:
            file.truncate(8 << 20)
        primary = based(adopt(mounted, {"a": volume}))
        fill_up(mounted, leave=300 << 10)
        with detaching(primary) as recorder:
            client = Client(primary, recorder)
            for number in range(400):
                client.write("a", number * 20000 % (8 << 20), os.urandom(3000))
                if number % 7 == 0:
                    recorder.write_back(checkpoint=number % 3 == 0)
                if number % 11 == 0:
                    recorder.flush()
            assert recorder.statistics().problem
            assert not recorder.attach()
        with detaching(primary) as recorder:  # after a crash, and still full
            client.recorder = recorder
            client.check(recorder)
            client.write("a", 5, b"still served")
            os.unlink(os.path.join(mounted, "filler"))
            assert recorder.attach()
            recorder.close()
        client.check_everywhere()


def test_the_thread_attaches_by_itself(primary: Primary, full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder(primary.journal_path, when_full=WhenFull.DETACH, reserve=RESERVE) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"detached")
        ended, real = threading.Event(), recorder._detachment._end

        def end() -> bool:
            is_over = real()
            ended.set()
            return is_over

        monkeypatch.setattr(recorder._detachment, "_end", end)
        full.is_full = False
        recorder._volumes._wake.set()
        assert ended.wait(60)
    client.check_everywhere()


def test_without_room_for_the_reserve_it_starts_anyhow(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    def reserve(*_: object) -> None:
        raise NoSpaceError("full")

    with monkeypatch.context() as patch:
        patch.setattr(files.File, "reserve", reserve)
        with detaching(primary) as recorder:
            recorder.change("a", [Change(0, 1, b"x")])


def test_a_mark_that_is_refused_after_a_crash_leaves_the_volume_known(primary: Primary, full: Full) -> None:
    """It must not make a clean stop of it: the volume was written without the journal since the checkpoint."""
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"without the journal")
    full.is_full = False
    with pytest.raises(MirrortoolError):
        mark(primary.journal_path, "refused")
    with detaching(primary) as recorder:
        assert recorder.attach()
        recorder.close()
    client.check_everywhere()


def test_a_scan_ends_a_detachment(primary: Primary, full: Full) -> None:
    with detaching(primary) as recorder:
        client = Client(primary, recorder)
        full.is_full = True
        client.write("a", 0, b"without the journal")
    full.is_full = False
    primary.scan()
    mark(primary.journal_path, "whole")
    client.check_everywhere()
