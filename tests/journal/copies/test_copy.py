"""A copy is the journal's files, or it says why not; nothing that does not belong there gets in."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files, hostinfo
from mirrortool.errors import (
    AccessError,
    CorruptJournalError,
    ForkedJournalError,
    InputOutputError,
    LinkError,
    LockedError,
    MirrortoolError,
    MissingFileError,
    NewerJournalError,
    NoSpaceError,
    OtherJournalError,
    TornJournalError,
)
from mirrortool.journal import format as layout
from mirrortool.journal import journalfile
from mirrortool.journal.audit import Audit
from mirrortool.journal.codec import decode_file_header, encode_file_header
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.copies.directory import is_primary
from mirrortool.journal.directory import Journal
from mirrortool.journal.format import FILE_HEADER
from mirrortool.journal.journalfile import JournalFile
from mirrortool.journal.lineage import History
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.rawframes import Run, RunReader, find_end, position_at
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slotpositions import SlotPlaces
from mirrortool.journal.slots import Slot
from mirrortool.operation import BatchBuilder
from tests.conftest import FakeClock
from tests.fakes.disk import BLOCK, Call, LosingSync, fail_at, faulty, lose_at, no_fault
from tests.fakes.journals import Commit, JournalMaker, Resize, Write
from tests.journal.sample import flip, last_file


def made(path: Path, frames: int = 6, *, value: int = 1, file_bytes: int = 900) -> Journal:
    maker = JournalMaker(path, {"disk": 64 * 512}, file_bytes=file_bytes)
    for number in range(frames):
        maker.frame(Write("disk", number, bytes([number + value]) * 512), Commit())
    return maker.close()


def runs_of(journal: Journal, run_bytes: int = 1) -> list[Run]:
    """Every run, with data of its own."""
    found = []
    with RunReader(journal) as reader:
        while run := reader.next_run(run_bytes):
            data = memoryview(bytes(run.data))
            found.append(replace(run, data=data))
    return found


def append(copy: Copy, run: Run) -> None:
    copy.append(run.file_first_lsn, run.offset, run.data)


def begun(path: Path, journal: Journal) -> Copy:
    copy = Copy(str(path))
    copy.begin(Journal(journal.path).description)
    return copy


def whole(path: Path, journal: Journal) -> None:
    whole_until(path, journal, runs_of(journal))


def whole_until(path: Path, journal: Journal, runs: list[Run]) -> None:
    copy = begun(path, journal)
    for run in runs:
        append(copy, run)
    copy.close()


def dropped(copy: Copy) -> None:
    """Let go of everything as kill -9 does."""
    copy._end.is_dead = True
    copy.close()


def marked(path: Path) -> int:
    """The LSN of the durable mark."""
    return int(json.loads((path / "received.json").read_text())["position"]["lsn"])


def no_room(_call: Call) -> None:
    raise OSError(errno.ENOSPC, "full")


def commits_read(journal: Journal) -> int:
    with JournalReader(journal) as reader:
        return sum(frame.header.is_commit for frame in iter(reader.next_frame, None))


def contents(path: Path | str) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(Path(path, "files").iterdir())}


@pytest.mark.parametrize("run_bytes", [1, 300, 1 << 20])
def test_runs_are_the_files(tmp_path: Path, run_bytes: int) -> None:
    journal = made(tmp_path / "J")
    found: dict[int, bytes] = {}
    for run in runs_of(journal, run_bytes):
        assert run.offset == len(found.get(run.file_first_lsn, b""))
        found[run.file_first_lsn] = found.get(run.file_first_lsn, b"") + bytes(run.data)
    assert list(found.values()) == list(contents(journal.path).values())
    assert find_end(journal) == runs_of(journal)[-1].position


def test_a_run_ends_before_a_damaged_body(tmp_path: Path) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    flip(last_file(journal), runs_of(journal)[3].offset + 100)
    with RunReader(journal) as reader:
        run = reader.next_run(1 << 20)
        assert run is not None and run.position.lsn == 6
        with pytest.raises(CorruptJournalError):
            reader.next_run(1 << 20)


def test_a_frame_that_changes_while_it_is_read_is_not_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    monkeypatch.setattr(journalfile, "_READ_BYTES", layout.FRAME_HEADER.size)  # so the whole frame is read once more
    real = JournalFile.raw

    def flip_first(self: JournalFile, offset: int, length: int) -> memoryview:
        monkeypatch.setattr(JournalFile, "raw", real)
        flip(last_file(journal), layout.FILE_HEADER.size + 60)
        return real(self, offset, length)

    with RunReader(journal) as reader:
        monkeypatch.setattr(JournalFile, "raw", flip_first)
        with pytest.raises(CorruptJournalError):
            reader.next_run(1)
        assert reader.position == journal.start


def test_position_at_a_frame_end_only(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    assert position_at(journal, 4) == runs_of(journal)[1].position
    assert position_at(journal, 0) == journal.start
    for lsn in (3, 100):
        with pytest.raises(MirrortoolError) as caught:
            position_at(journal, lsn)
        assert caught.value.exit_code == 2
    os.remove(journal.file_path(1))
    with pytest.raises(MissingFileError, match="no journal file holds LSN 2"):
        position_at(journal, 2)


def test_a_copy_is_byte_for_byte_the_journal(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    assert contents(tmp_path / "C") == contents(journal.path)
    assert sorted(os.listdir(tmp_path / "C")) == ["copy.json", "files", "journal.json", "lock", "received.json"]
    assert not is_primary(str(tmp_path / "C"))


@pytest.mark.parametrize("run_bytes", [1, 300, 1 << 20])
def test_runs_of_this_process_make_the_same_copy(tmp_path: Path, run_bytes: int) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    for run in runs_of(journal, run_bytes):
        copy.append_run(run)
        assert (copy.position, copy.time_ns) == (run.position, run.time_ns)
    copy.close()
    assert contents(tmp_path / "C") == contents(journal.path)


def _wrong_sum(builder: BatchBuilder) -> None:
    builder.write(0, b"x" * 512, b"\1" * 8)


def _outside(builder: BatchBuilder) -> None:
    builder.zero(64, 1)


def _no_volume(builder: BatchBuilder) -> None:
    builder.resize(3, 512)


@pytest.mark.parametrize("say", [_wrong_sum, _outside, _no_volume])
@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_what_verify_would_refuse_is_not_acknowledged(
    tmp_path: Path, say: Callable[[BatchBuilder], None], is_local: bool, is_first: bool
) -> None:
    """Its checksums hold: whoever wrote it did so on purpose, or by a bug."""
    maker = JournalMaker(tmp_path / "J", {"disk": 64 * 512}, file_bytes=1 << 20)
    if not is_first:
        maker.frame(Write("disk", 1, b"y" * 512), Commit())
    builder = BatchBuilder(512)
    say(builder)
    maker.append(builder.build())
    journal = maker.close()
    copy = begun(tmp_path / "C", journal)
    *sound, bad = runs_of(journal)
    for run in sound:
        append(copy, run)
    before = copy.position
    with pytest.raises(CorruptJournalError, match="that arrives contradicts itself"):
        copy.append_run(bad) if is_local else append(copy, bad)
    assert (copy.position, copy.sync()) == (before, before)
    copy.close()
    assert Audit(str(tmp_path / "C")).run().lsn == before.lsn


def _without_sizes(mark: dict[str, object]) -> None:
    del mark["sizes"]


def _of_other_volumes(mark: dict[str, object]) -> None:
    mark["sizes"] = {"other": 512}


def _beyond_the_address_space(mark: dict[str, object]) -> None:
    mark["sizes"] = {"disk": (1 << 63) - 1}


@pytest.mark.parametrize(
    ("spoil", "is_known"),
    [(None, True), (_without_sizes, False), (_of_other_volumes, False), (_beyond_the_address_space, False)],
)
def test_sizes_are_known_after_a_kill_unless_the_mark_lacks_them(
    tmp_path: Path, spoil: Callable[[dict[str, object]], None] | None, is_known: bool
) -> None:
    """Those of the mark, and what was stored after it: smaller, larger, and in the end 40 pages."""
    maker = JournalMaker(tmp_path / "J", {"disk": 64 * 512}, file_bytes=1 << 20)
    maker.frame(Write("disk", 60, b"y" * 512), Commit())
    maker.frame(Resize("disk", 20 * 512), Commit())
    maker.frame(Write("disk", 19, b"y" * 512), Resize("disk", 40 * 512), Write("disk", 39, b"y" * 512), Commit())
    for page in (39, 40):
        builder = BatchBuilder(512)
        builder.zero(page, 1)
        maker.append(builder.build())
    first, *more, inside, outside = runs_of(maker.close())
    whole_until(tmp_path / "C", maker.journal, [first])
    copy = begun(tmp_path / "C", maker.journal)
    for run in more:
        append(copy, run)
    dropped(copy)
    assert marked(tmp_path / "C") == 2
    if spoil:
        mark = json.loads((tmp_path / "C/received.json").read_text())
        spoil(mark)
        (tmp_path / "C/received.json").write_text(json.dumps(mark))
    again = begun(tmp_path / "C", maker.journal)
    append(again, inside)
    if is_known:
        with pytest.raises(CorruptJournalError, match="outside the volumes"):
            append(again, outside)
    else:
        append(again, outside)
    again.close()


def test_a_run_of_this_process_goes_nowhere_but_on_from_the_end(tmp_path: Path) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    first, second, third, *_ = runs_of(journal)
    copy = begun(tmp_path / "C", journal)
    copy.append_run(first)
    with pytest.raises(MissingFileError):
        copy.append_run(third)
    with pytest.raises(LinkError):
        copy.append_run(replace(third, offset=second.offset))
    copy.append_run(first)
    damaged = bytes(first.data[:-1]) + b"!"
    with pytest.raises(ForkedJournalError):
        copy.append_run(replace(first, data=memoryview(damaged)))
    assert copy.position == first.position
    copy.append_run(second)
    assert copy.position == second.position
    copy.close()


def test_what_is_there_is_compared_and_not_written_again(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    copy = begun(tmp_path / "C", journal)
    for run in runs_of(journal, 1 << 20):
        append(copy, run)
    run = runs_of(journal)[2]
    other = bytearray(run.data)
    other[-1] ^= 1
    with pytest.raises(ForkedJournalError):
        copy.append(run.file_first_lsn, run.offset, memoryview(other))
    copy.close()
    assert contents(tmp_path / "C") == contents(journal.path)


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("at", range(30))
def test_a_flipped_bit_is_refused_and_nothing_is_stored(tmp_path: Path, at: int) -> None:
    journal = made(tmp_path / "J", 2, file_bytes=1 << 20)
    (run,) = runs_of(journal, 1 << 20)
    copy = begun(tmp_path / "C", journal)
    data = bytearray(run.data)
    data[at * len(data) // 30] ^= 8
    with pytest.raises(LinkError):
        copy.append(1, 0, memoryview(data))
    assert contents(tmp_path / "C") == {}
    append(copy, run)
    copy.close()
    assert contents(tmp_path / "C") == contents(journal.path)


def test_a_gap_is_named(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    for run in (runs_of(journal)[1], runs_of(journal)[-1]):
        with pytest.raises(MissingFileError):
            append(copy, run)
    copy.close()


def test_another_journal_and_other_volumes_are_refused(tmp_path: Path) -> None:
    journal, other = made(tmp_path / "J"), made(tmp_path / "K")
    whole(tmp_path / "C", journal)
    copy = Copy(str(tmp_path / "C"))
    with pytest.raises(OtherJournalError):
        copy.begin(other.description)
    values = json.loads(Path(journal.path, "journal.json").read_text())
    values["volumes"][0]["size"] += 512
    Path(journal.path, "journal.json").write_text(json.dumps(values))
    with pytest.raises(OtherJournalError, match="other volumes"):
        copy.begin(Journal(journal.path).description)
    copy.close()


def test_a_file_that_belongs_elsewhere_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    journal, other = made(tmp_path / "J"), made(tmp_path / "K")
    copy = begun(tmp_path / "C", journal)
    (first, *_), (foreign, *_) = runs_of(journal), runs_of(other)
    with pytest.raises(OtherJournalError, match="a file of another journal arrived"):
        append(copy, foreign)
    header = decode_file_header(bytes(first.data[: FILE_HEADER.size]))
    for changed, why in (
        (replace(header, chain=header.chain + 1), "a file arrived that begins at position"),
        (replace(header, epoch=header.epoch + 1), f"a file arrived of epoch {header.epoch + 1}"),
    ):
        data = encode_file_header(changed) + bytes(first.data[FILE_HEADER.size :])
        with pytest.raises(ForkedJournalError, match=why):
            append(copy, replace(first, data=memoryview(data)))
    assert not contents(tmp_path / "C")
    copy.close()


def test_an_older_epoch_is_refused_with_both_positions_and_a_newer_one_followed(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    old = History(journal.uuid, journal.history.epochs)
    end = find_end(journal)
    journal.save_history(old.promoted(end, bytes(16)), None)
    copy = Copy(str(tmp_path / "C"))
    copy.begin(Journal(journal.path).description)
    assert Journal(str(tmp_path / "C")).epoch == 1
    journal.save_history(old, None)
    with pytest.raises(ForkedJournalError) as caught:
        copy.begin(Journal(journal.path).description)
    assert str(caught.value).count(str(end)) >= 2
    copy.close()


def test_a_primary_is_never_written(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    with pytest.raises(AccessError, match="primary"):
        Copy(journal.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(AccessError, match="not empty"):
        Copy(str(tmp_path / "full"))
    assert os.listdir(tmp_path / "full") == ["letter.txt"]


def test_two_receivers_exclude_each_other(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    with pytest.raises(LockedError):
        Copy(str(tmp_path / "C"))
    copy.close()
    Copy(str(tmp_path / "C")).close()


@pytest.mark.usefixtures("no_sync")
def test_a_torn_tail_is_cut_at_every_byte_and_comes_again(tmp_path: Path) -> None:
    journal = made(tmp_path / "J", 4)
    runs = runs_of(journal)
    for size in range(0, last_file(journal).stat().st_size, 5):
        shutil.rmtree(tmp_path / "C", ignore_errors=True)
        killed = begun(tmp_path / "C", journal)
        for run in runs:
            append(killed, run)
        dropped(killed)
        os.truncate(last_file(Journal(str(tmp_path / "C"))), size)
        copy = begun(tmp_path / "C", journal)
        assert copy.is_durable
        for run in runs:
            append(copy, run)
        copy.close()
        assert contents(tmp_path / "C") == contents(journal.path)


def test_a_clean_end_is_kept_until_more_arrives(tmp_path: Path) -> None:
    maker = JournalMaker(tmp_path / "J", {"disk": 64 * 512})
    maker.frame(Write("disk", 0, b"1" * 512), Commit())
    journal = maker.close()
    whole(tmp_path / "C", journal)
    copy = begun(tmp_path / "C", journal)
    end = Journal(journal.path).clean_end
    assert end is not None and copy.note_end(end)
    copy.close()
    assert Journal(str(tmp_path / "C")).clean_end == end
    cut = sorted((tmp_path / "C/files").iterdir())[-1]
    os.truncate(cut, cut.stat().st_size - 3)
    with pytest.raises(CorruptJournalError):  # not torn: the end was durable
        Copy(str(tmp_path / "C"))


def test_a_clean_end_in_a_file_that_was_only_begun_is_kept_too(tmp_path: Path) -> None:
    """A power cut left the primary such a file, and its recorder stopped before it had anything to append."""
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    copy = begun(tmp_path / "C", journal)
    end = journal.clean_end
    assert end and copy.note_end(FrameEnd(end.position, end.position.lsn + 1, FILE_HEADER.size))
    copy.close()
    assert Journal(str(tmp_path / "C")).clean_end == end


def test_another_end_than_the_copys_is_not_kept(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    end = journal.clean_end
    assert end and not copy.note_end(end)
    for run in runs_of(journal)[:-1]:
        append(copy, run)
    assert not copy.note_end(end)
    copy.close()
    assert Journal(str(tmp_path / "C")).clean_end is None


@pytest.mark.parametrize("name", ["pwrite", "pwritev", "fsync", "rename"])
def test_a_full_disk_stores_nothing_and_the_same_works_later(tmp_path: Path, name: str) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    failed = 0

    def fault(call: Call) -> None:
        nonlocal failed
        if call.name == name and failed % 2 == 0:
            failed += 1
            raise OSError(errno.ENOSPC, "full")
        failed += call.name == name

    with faulty(fault):
        for run in runs_of(journal):
            before = copy.position
            try:
                append(copy, run)
            except NoSpaceError:
                assert copy.position == before
                append(copy, run)
    copy.close()
    assert contents(tmp_path / "C") == contents(journal.path)


def test_nothing_is_kept_that_a_failed_fdatasync_dropped_after_an_append_without_room(tmp_path: Path) -> None:
    """The frames before it are not durable either: the next receiver must not take them from the cache for that."""
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    copy = begun(tmp_path / "C", journal)
    runs = runs_of(journal)
    append(copy, runs[0])
    durable = copy.sync()
    tried = 0

    def fault(call: Call) -> None:
        nonlocal tried
        if "write" in call.name and call.path.endswith(".mj"):
            tried += 1
            if tried == 2:
                raise OSError(errno.ENOSPC, "full")
        if call.name == "fdatasync" and tried == 2:
            tried += 1
            raise LosingSync(share=1.0)

    with faulty(fault) as system:
        append(copy, runs[1])
        with pytest.raises(NoSpaceError):
            append(copy, runs[2])
        with pytest.raises(InputOutputError):
            copy.sync()
        copy.close()
        again = begun(tmp_path / "C", journal)
        assert again.durable == durable
        for run in runs[1:]:
            append(again, run)
        again.close()
        system.disk.lose_all()
    assert contents(tmp_path / "C") == contents(journal.path)


def test_after_a_failed_fdatasync_nothing_is_kept_that_may_be_lost(tmp_path: Path) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    copy = begun(tmp_path / "C", journal)
    runs = runs_of(journal)
    append(copy, runs[0])
    copy.sync()
    append(copy, runs[1])
    with faulty(fail_at(1, errno.EIO, lambda call: call.name == "fdatasync")), pytest.raises(InputOutputError):
        copy.sync()
    with pytest.raises(InputOutputError):
        append(copy, runs[2])
    copy.close()
    assert contents(tmp_path / "C")["0000000000000001.mj"] == bytes(runs[0].data)
    again = begun(tmp_path / "C", journal)
    assert again.position == runs[0].position
    again.close()


@pytest.mark.parametrize("what", ["the first file", "a frame", "another file"])
def test_what_was_cut_off_is_neither_damage_nor_a_fork_to_who_has_read_it(tmp_path: Path, what: str) -> None:
    """A follower made it durable itself. The file is gone, too, once the copy is opened again, if all of it was cut."""
    journal = made(tmp_path / "J", file_bytes=400)
    runs = runs_of(journal)
    begin = next(number for number, run in enumerate(runs[1:], 1) if run.offset == 0)
    durable = {"the first file": 0, "a frame": 1, "another file": begin}[what]
    whole_until(tmp_path / "C", journal, runs[:durable])
    copy = begun(tmp_path / "C", journal)
    append(copy, runs[durable])
    standing = JournalReader(Journal(str(tmp_path / "C")))
    standing.read_to(runs[durable].position.lsn)
    with faulty(fail_at(1, errno.EIO, lambda call: call.name == "fdatasync")), pytest.raises(InputOutputError):
        copy.sync()
    copy.close()

    def all_wait() -> None:
        for _ in range(2):
            with pytest.raises(TornJournalError, match="the next mirrortool ship to this copy"):
                standing.next_header()
            with pytest.raises(TornJournalError, match="the next mirrortool ship to this copy"):
                JournalReader(Journal(str(tmp_path / "C")), standing.position)
        slot = Slot("a", "0" * 32, "mirror", "a", standing.position, standing.time_ns, 0)
        assert SlotPlaces().is_contained(Journal(str(tmp_path / "C")), [slot]) == {}

    all_wait()
    again = begun(tmp_path / "C", journal)
    all_wait()
    for run in runs[durable : durable + 2]:
        append(again, run)
    again.close()
    assert standing.read_to(runs[durable + 1].position.lsn) == runs[durable + 1].position
    standing.close()
    JournalReader(Journal(str(tmp_path / "C")), runs[durable].position).close()


def test_a_copy_that_ends_before_its_mark_is_damaged_to_who_has_read_more(tmp_path: Path) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    runs = runs_of(journal)
    whole_until(tmp_path / "C", journal, runs[:2])
    with JournalReader(Journal(str(tmp_path / "C"))) as reader:
        reader.read_to(runs[1].position.lsn)
        os.truncate(last_file(Journal(str(tmp_path / "C"))), runs[1].offset)
        with pytest.raises(CorruptJournalError, match="was read up to offset"):
            reader.next_header()
    with pytest.raises(CorruptJournalError, match="was durable"):
        JournalReader(Journal(str(tmp_path / "C")), runs[1].position)


def test_what_a_failed_fdatasync_dropped_is_written_again_by_the_next_receiver(tmp_path: Path) -> None:
    """It could not be cut off; until the next boot the kernel reads it, and calls it durable."""
    maker = JournalMaker(tmp_path / "J", {"disk": 64 * 512}, file_bytes=1 << 20)
    for number in range(3):
        maker.frame(Write("disk", 8 * number, random.Random(number).randbytes(8 * 512)), Commit())
    journal = maker.close()
    runs = runs_of(journal)
    whole_until(tmp_path / "C", journal, runs[:1])
    failing: list[bool] = []

    def fault(call: Call) -> None:
        if failing and call.name == "ftruncate":
            raise OSError(errno.EIO, "failing")

    lost = lose_at(1, lambda call: bool(failing) and call.name == "fdatasync", share=1.0)

    def both(call: Call) -> object:
        fault(call)
        return lost(call)

    with faulty(both) as system:
        copy = begun(tmp_path / "C", journal)
        append(copy, runs[1])
        failing.append(True)
        with pytest.raises(InputOutputError):
            copy.sync()
        copy.close()
        failing.clear()
        again = begun(tmp_path / "C", journal)
        assert again.durable == runs[1].position
        append(again, runs[2])
        again.sync()
        dropped(again)
        system.disk.lose_all()
    last = begun(tmp_path / "C", journal)
    assert last.position.lsn >= runs[2].position.lsn
    last.close()


def test_what_is_written_again_is_what_follows_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the newest file is; all of it only where no mark tells."""
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    runs = runs_of(journal)
    whole_until(tmp_path / "C", journal, runs[:2])
    copy = begun(tmp_path / "C", journal)
    append(copy, runs[2])
    dropped(copy)
    written: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "write_again", lambda _path, start, end: written.append((start, end)))
    end = runs[2].offset + len(runs[2].data)
    begun(tmp_path / "C", journal).close()
    begun(tmp_path / "C", journal).close()
    (tmp_path / "C/received.json").unlink()
    begun(tmp_path / "C", journal).close()
    assert written == [(runs[2].offset, end), (0, end)]


def test_files_are_durable_before_their_successor_is_made(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    copy = begun(tmp_path / "C", journal)
    with faulty(lambda _: None) as system:
        for run in runs_of(journal):
            append(copy, run)
            newest = [name for name in system.disk.dirty() if name.endswith(".mj")]
            assert len(newest) <= 1
    copy.close()


@pytest.mark.parametrize("durable", [0, 1, 3])
def test_a_power_cut_that_leaves_a_hole_before_a_commit_is_mended_by_the_next_shipment(
    tmp_path: Path, durable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was not synced here the first sector is lost, of a new file with its header; a COMMIT after it stays."""
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    runs = runs_of(journal)
    whole_until(tmp_path / "C", journal, runs[:durable])
    copy = begun(tmp_path / "C", journal)
    hole = copy.offset
    for run in runs[durable:]:
        append(copy, run)
    (path,) = (tmp_path / "C/files").iterdir()
    dropped(copy)
    path.write_bytes(path.read_bytes()[:hole] + bytes(BLOCK) + path.read_bytes()[hole + BLOCK :])
    with pytest.raises(CorruptJournalError):  # the kernel that wrote it still runs, so that no power cut explains it
        Copy(str(tmp_path / "C"))
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    for reader in (Audit(str(tmp_path / "C")).run, lambda: commits_read(Journal(str(tmp_path / "C")))):
        if durable:
            with pytest.raises(TornJournalError):
                reader()
    again = begun(tmp_path / "C", journal)
    assert again.position.lsn == 2 * durable
    for run in runs[durable:]:
        append(again, run)
    again.close()
    assert contents(tmp_path / "C") == contents(journal.path)


def test_what_the_mark_says_is_durable_is_damage_when_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    whole(tmp_path / "C", journal)
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    path = last_file(Journal(str(tmp_path / "C")))
    sound = path.read_bytes()
    flip(path, runs_of(journal)[-1].offset + 100)
    with pytest.raises(CorruptJournalError):
        Copy(str(tmp_path / "C"))
    for damaged in (bytes(BLOCK) + sound[BLOCK:], sound[:-1], sound[: runs_of(journal)[-1].offset], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptJournalError):
            Copy(str(tmp_path / "C"))
    path.unlink()
    with pytest.raises(MissingFileError):
        commits_read(Journal(str(tmp_path / "C")))


def test_a_copy_of_an_older_version_is_judged_by_its_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no mark, and of a directory that was copied by other means the mark counts for nothing."""
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    whole(tmp_path / "C", journal)
    shutil.copytree(tmp_path / "C", tmp_path / "D")
    (tmp_path / "C/received.json").unlink()
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    for place in (tmp_path / "C", tmp_path / "D"):
        path = last_file(Journal(str(place)))
        sound = path.read_bytes()
        path.write_bytes(sound[:-1])
        with pytest.raises(TornJournalError):
            commits_read(Journal(str(place)))
        path.write_bytes(bytes(BLOCK) + sound[BLOCK:])
        with pytest.raises(CorruptJournalError):
            commits_read(Journal(str(place)))


def test_the_mark_is_true_whenever_the_power_fails_and_costs_no_acknowledgement(
    tmp_path: Path, fake_clock: FakeClock
) -> None:
    journal = made(tmp_path / "J")
    with faulty(no_fault) as system:
        copy = begun(tmp_path / "C", journal)
        for run in runs_of(journal):
            append(copy, run)
            before = marked(tmp_path / "C")
            assert before == 0
            calls = len(system.calls)
            copy.sync()
            assert [call.name for call in system.calls[calls:]] == ["fdatasync"]
            assert marked(tmp_path / "C") == before
        fake_clock.advance(3)
        copy.sync()
        assert marked(tmp_path / "C") == copy.durable.lsn == 12
        copy.close()


def test_a_mark_of_a_newer_version_is_refused_by_its_name(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    path = tmp_path / "C/received.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(NewerJournalError, match=r"received.json: is of format 2"):
        Copy(str(tmp_path / "C"))


def test_no_room_for_the_mark_stops_nothing(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    with faulty(lambda call: no_room(call) if "received.json" in call.path else None):
        whole(tmp_path / "C", journal)
    assert contents(tmp_path / "C") == contents(journal.path)
    assert not (tmp_path / "C/received.json").exists()


def test_what_a_killed_receiver_left_is_durable_once_the_copy_is_opened(tmp_path: Path) -> None:
    """Its file had no durable name yet, and the next receiver tells the sender that the copy ends in it."""
    journal = made(tmp_path / "J", file_bytes=1 << 20)
    (run,) = runs_of(journal, 1 << 20)

    def kill(call: Call) -> None:
        if call.name == "fsync" and call.path.endswith("files"):
            raise KeyboardInterrupt

    with faulty(no_fault) as system:
        copy = begun(tmp_path / "C", journal)
        system._fault = kill
        with pytest.raises(KeyboardInterrupt):
            append(copy, run)
        dropped(copy)
        system._fault = no_fault
        again = begun(tmp_path / "C", journal)
        assert again.durable == run.position
        dropped(again)
        system.disk.lose_all()
    assert contents(tmp_path / "C") == contents(journal.path)


def test_a_copy_contains_what_its_frames_went_through(tmp_path: Path) -> None:
    journal = made(tmp_path / "J")
    whole(tmp_path / "C", journal)
    copy = begun(tmp_path / "C", journal)
    position = runs_of(journal)[2].position
    assert copy.contains(position)
    for other in (Position(position.lsn, position.chain ^ 1), Position(position.lsn - 1, position.chain)):
        assert not copy.contains(other)
    copy.close()


def test_a_clean_end_that_could_not_be_forgotten_is_forgotten_later(tmp_path: Path) -> None:
    """Else frames after it would count as damage."""
    maker = JournalMaker(tmp_path / "J", {"disk": 64 * 512})
    maker.frame(Commit())
    maker.writer.sync()
    copy = begun(tmp_path / "C", maker.journal)
    append(copy, runs_of(maker.journal)[0])
    assert copy.note_end(FrameEnd(copy.position, copy.file_first_lsn, copy.offset))
    maker.frame(Commit())
    (*_, run) = runs_of(maker.close())
    with faulty(fail_at(1, errno.ENOSPC, lambda call: "journal.json" in call.path)), pytest.raises(NoSpaceError):
        append(copy, run)
    append(copy, run)
    copy.close()
    assert Journal(str(tmp_path / "C")).clean_end is None


@pytest.mark.parametrize("lose", ["file", "copy"])
def test_nothing_is_acknowledged_of_a_copy_that_was_deleted(tmp_path: Path, lose: str) -> None:
    """Its sender forgets what it is told is there."""
    journal = made(tmp_path / "j", file_bytes=1 << 20)
    runs = runs_of(journal)
    copy = Copy(str(tmp_path / "copy"))
    copy.begin(Journal(journal.path).description)
    append(copy, runs[0])
    durable = copy.sync()
    append(copy, runs[1])
    if lose == "file":
        assert copy.journal
        os.unlink(last_file(copy.journal))
    else:
        shutil.rmtree(copy.path)
    for _ in range(2):
        with pytest.raises(InputOutputError):
            copy.sync()
    assert copy.durable == durable
    copy.close()


def test_a_closed_copy_takes_nothing_in(tmp_path: Path) -> None:
    """Its lock is another's by then."""
    runs = runs_of(made(tmp_path / "j", file_bytes=1 << 20))
    copy = begun(tmp_path / "copy", Journal(str(tmp_path / "j")))
    append(copy, runs[0])
    copy.close()
    before = contents(tmp_path / "copy")
    for attempt in (copy.sync, lambda: append(copy, runs[1])):
        with pytest.raises(InputOutputError):
            attempt()
    assert contents(tmp_path / "copy") == before
