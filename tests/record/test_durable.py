"""A recorder's promises after a power cut at any call, in the ways that show a missing sync: see tests/fakes/cuts.py.

What was flushed, written back, marked, zeroed or closed is there; volumes and journal agree; and so again after the
next recorder was cut in its recovery. Here one short history each; many at random: tests/crash/test_record_power.py.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrortool import clock, hostinfo
from mirrortool.change import Change
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.record.detach import WhenFull
from mirrortool.record.heldvolumes import STALL_NS
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.volumeside import VolumeSide
from tests.fakes.cuts import EACH_CALL, lose_after, lose_everywhere
from tests.fakes.disk import Call, faulty
from tests.fakes.journals import memory_directory
from tests.fakes.recorders import Model, based, drop, small_scale
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import PAGE, Primary, make_primary, pattern, small_journal_files
from tests.record.fulljournal import RESERVE, Full

SIZES = {"a": 12 * PAGE, "b": 3 * PAGE + 7}


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture(autouse=True)
def _boots(monkeypatch: pytest.MonkeyPatch) -> None:
    small_scale(monkeypatch)
    small_journal_files(monkeypatch, 12 * PAGE)
    numbers = itertools.count()
    boot = [0]
    monkeypatch.setattr(hostinfo, "boot_id", lambda: f"boot {boot[0]}")
    monkeypatch.setattr(Recording, "reboot", lambda _: boot.__setitem__(0, next(numbers)))


class Recording:
    """A primary, what is done to it, and what it must have then.

    Attributes:
        kept: the index of the newest state that must survive.
        marks: names that must be in the journal.
    """

    def __init__(
        self, place: Path, script: Callable[[Recording, Recorder], None], *, is_based: bool = True, **options: Any
    ) -> None:
        self._place, self._script, self._is_based, self._options = place / "P", script, is_based, options
        self.recorder: Recorder | None = None

    def reboot(self) -> None:
        """The next process runs under another kernel."""

    def prepare(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()
        contents = {name: pattern(len(name), size) for name, size in SIZES.items()}
        self.primary: Primary = make_primary(self._place, contents)
        if self._is_based:
            based(self.primary)
        self.model = Model(contents, remember=True)
        self.kept, self.marks = 0, set[str]()
        self.reboot()

    def act(self) -> None:
        self.recorder = None
        try:
            self.recorder = Recorder(self.primary.journal_path, background=False, **self._options)
            self._script(self, self.recorder)
        finally:
            if self.recorder:
                drop(self.recorder)

    def change(self, offset: int, data: bytes | None, length: int | None = None) -> None:
        assert self.recorder
        change = Change(offset, len(data) if data is not None else length or 0, data)
        self.model.change("a", [change])
        self.recorder.change("a", [change])

    def keep(self) -> None:
        self.kept = len(self.model.states) - 1

    def check(self, has_ended: bool) -> None:
        self.reboot()
        recorder = Recorder(self.primary.journal_path, background=False)
        try:
            found = self.primary.contents()
            assert found in self.model.states[self.kept :]
            if not recorder.incomplete:
                assert volumes_at(self.primary.journal) == found
        finally:
            drop(recorder)
        names = {commit.name for commit in commits(Journal(self.primary.journal_path))}
        assert names >= self.marks


def serve(run: Recording, recorder: Recorder) -> None:
    run.change(3, b"x" * 700)
    recorder.flush()
    run.keep()
    run.change(PAGE, b"y" * 40)
    recorder.write_back()
    run.keep()
    run.change(0, None, 8 * PAGE)  # large: done at once
    run.change(9 * PAGE, b"z" * PAGE)
    recorder.write_back(checkpoint=True)
    run.keep()
    run.change(5, b"w" * 9)
    recorder.commit("here")
    run.keep()
    run.marks.add("here")
    recorder.close()


def scan(run: Recording, recorder: Recorder) -> None:
    InitialScan(recorder).run()
    run.change(3, b"x" * 700)
    recorder.flush()
    run.keep()
    recorder.close()


@pytest.mark.parametrize(("script", "is_based"), [(serve, True), (scan, False)], ids=["serve", "scan"])
@EACH_CALL
def test_what_was_promised_is_there(place: Path, script: Callable[..., None], is_based: bool, step: int) -> None:
    run = Recording(place, script, is_based=is_based)
    lose_everywhere(run.prepare, run.act, run.check, least=40, step=step)


@EACH_CALL
def test_what_was_captured_is_durable_before_it_is_forgotten_that_it_was_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The journal had no room for a while; the next recorder lets it catch up, wherever this one was cut."""
    full = Full(monkeypatch)

    def detach(run: Recording, recorder: Recorder) -> None:
        full.is_full = True
        run.change(3, b"x" * 700)
        recorder.flush()
        run.keep()
        full.is_full = False
        assert recorder.attach()

    run = Recording(place, detach, when_full=WhenFull.DETACH, reserve=RESERVE)

    def check(_has_ended: bool) -> None:
        full.is_full = False
        run.reboot()
        recorder = Recorder(run.primary.journal_path, background=False, when_full=WhenFull.DETACH, reserve=RESERVE)
        try:
            assert recorder.attach()
            recorder.flush()
            found = run.primary.contents()
            assert found in run.model.states[run.kept :] and volumes_at(run.primary.journal) == found
        finally:
            drop(recorder)

    lose_everywhere(run.prepare, run.act, check, least=40, step=step)


def test_a_frame_with_the_time_is_durable_before_a_volume_is_written_late(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else, after a power cut, what the write-back wrote looks like a change of another program."""
    run = Recording(place, lambda _run, _recorder: None)
    run.prepare()
    late_ns = 0
    monkeypatch.setattr(clock, "now_ns", lambda: time.time_ns() + late_ns)
    found: list[bool] = []

    def fault(call: Call) -> None:
        if call.path == run.primary.paths["a"] and "write" in call.name:
            journal = recorder._journal
            found.append(journal.durable == journal.position and journal.time_ns > clock.now_ns() - STALL_NS)

    with faulty(fault):
        recorder = Recorder(run.primary.journal_path, background=False)
        recorder.write("a", 3, b"x" * 700, fua=True)
        late_ns = 2 * STALL_NS
        recorder.write_back()
        drop(recorder)
    assert found and all(found)


def test_what_comes_before_a_large_zero_is_durable_before_it_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client's change, between the write-back and the moment at which nothing may wait."""

    def zero(run: Recording, recorder: Recorder) -> None:
        real = VolumeSide._write_back
        late = [lambda: run.change(PAGE, b"late" * 9)]

        def write_back(side: VolumeSide, checkpoint: bool) -> None:
            real(side, checkpoint)
            if late:
                late.pop()()

        monkeypatch.setattr(VolumeSide, "_write_back", write_back)
        with recorder._volumes.drained():
            pass

    run = Recording(place, zero)
    lose_everywhere(run.prepare, run.act, run.check, least=10)


def test_a_mark_is_there_when_it_was_made(place: Path) -> None:
    run = Recording(place, lambda _run, _recorder: None)
    run.prepare()
    lose_after(lambda: mark(run.primary.journal_path, "here"))
    assert "here" in {commit.name for commit in commits(Journal(run.primary.journal_path))}


class Recovering(Recording):
    """A recorder that was killed with frames that the volume lacks, and a torn tail after them."""

    def __init__(self, place: Path, act: Callable[[str], object], *, in_new_file: bool) -> None:
        super().__init__(place, lambda _run, _recorder: None)
        self._act, self._in_new_file = act, in_new_file

    def prepare(self) -> None:
        super().prepare()
        self.recorder = Recorder(self.primary.journal_path, background=False)
        self.change(3, b"x" * 700)
        self.recorder.flush()
        self.change(4 * PAGE, b"y" * 40)
        self.recorder.flush()
        self.keep()
        drop(self.recorder)
        files = sorted((self._place / "journal/files").iterdir())
        newest = files[-1]
        if self._in_new_file:
            newest = Path(self.primary.journal.file_path(self.recorder._journal.position.next_lsn))
        with newest.open("ab") as file:
            file.write(TORN)
        (self._place / "journal/torn").rmdir()  # as in a journal that was copied by other means
        self.reboot()

    def act(self) -> None:
        self._act(self.primary.journal_path)

    def check(self, has_ended: bool) -> None:
        found = [path.read_bytes() for path in (self._place / "journal").rglob("*") if path.is_file()]
        assert any(data.endswith(TORN) for data in found), "what was torn is nowhere"
        if has_ended:
            left = [path.read_bytes() for path in (self._place / "journal/files").iterdir()]
            assert not any(data.endswith(TORN) for data in left), "it came back"
        super().check(has_ended)


TORN = b"MJF1 torn" * 40


def only_open(path: str) -> None:
    opened = OpenJournal(path, hold=True)
    opened._opened.close()


@pytest.mark.parametrize("in_new_file", [False, True])
@EACH_CALL
def test_a_torn_tail_is_kept_and_what_is_redone_is_there(place: Path, in_new_file: bool, step: int) -> None:
    run = Recovering(place, only_open, in_new_file=in_new_file)
    lose_everywhere(run.prepare, run.act, run.check, least=15, step=step)
