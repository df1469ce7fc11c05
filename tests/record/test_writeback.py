"""Moments of a live recorder: nothing reaches a volume too early, and all that comes in meanwhile is seen and kept."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mirrortool.change import Change
from mirrortool.errors import InputOutputError, UsageError
from mirrortool.files import File
from mirrortool.record import recorder as recorder_module
from mirrortool.record import volumeside
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.record.writeback import overlaid, write_pages
from tests.fakes.disk import Call, fail_at, faulty, is_checkpoint, is_journal, is_sums, is_volume
from tests.fakes.recorders import based, check_everywhere, drop, quiet_recorder
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import PAGE, Primary, make_primary, pattern, read_bytes
from tests.fakes.waiting import PATIENCE_SECONDS, in_thread, join

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def primary(directory: str) -> Primary:
    return based(make_primary(directory, {"a": pattern(1, 40 * PAGE + 9), "b": bytes(9 * PAGE)}))


# What reaches a volume, and when


def test_nothing_reaches_a_volume_before_it_is_durable(primary: Primary) -> None:
    before = primary.contents()["a"]
    secret = b"SECRET" * 100
    with quiet_recorder(primary) as recorder, faulty(lambda _: None) as system:
        recorder.write("a", 5, secret)
        recorder.zero("a", 20 * PAGE, 2 * PAGE)
        assert primary.contents()["a"] == before
        recorder.flush()
        assert primary.contents()["a"] == before  # FLUSH is of the journal
        recorder.write_back()
        after = primary.contents()["a"]
        assert after[5 : 5 + len(secret)] == secret and not any(after[20 * PAGE : 22 * PAGE])
        recorder.write("a", 5, b"second" * 50)
        recorder.write_back(checkpoint=True)
        for number, call in enumerate(system.calls):
            if is_volume(call) and call.name in ("pwritev", "punch"):
                journal = [each.name for each in system.calls[:number] if is_journal(each)]
                assert journal[-1] == "fdatasync", "a frame was appended, and not made durable, before this"
    syncs = [kind_of(call) for call in system.calls if call.name in ("fdatasync", "rename")]
    assert syncs[-9:] == [0, 1, 1, 2, 2, 2, 2, 3, 3]


def kind_of(call: Call) -> int | None:
    for kind, test in enumerate((is_journal, is_volume, is_sums, is_checkpoint)):
        if test(call):
            return kind
    return None


def test_what_comes_in_during_a_write_back_waits_for_the_next(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frame is not durable with the others."""
    with quiet_recorder(primary) as recorder:
        real = volumeside.write_pages

        def write_pages(*arguments: Any) -> None:
            recorder.write("a", 3, b"LATE")
            assert recorder.read("a", 0, 8) == b"ear" + b"LATE" + b"a"
            real(*arguments)
            assert b"LATE" not in read_bytes(primary.paths["a"])
            assert recorder.read("a", 0, 8) == b"ear" + b"LATE" + b"a"

        monkeypatch.setattr(volumeside, "write_pages", write_pages)
        recorder.write("a", 0, b"eararlya")
        recorder.write_back()
        assert recorder.read("a", 0, 8) == b"ear" + b"LATE" + b"a"


def test_reads_and_widening_see_the_newest_at_each_stage(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the volume, on its way, waiting: three changes of one page, each seen by the next."""
    content = bytearray(primary.contents()["a"])
    with quiet_recorder(primary) as recorder:

        def change(offset: int, data: bytes) -> None:
            recorder.write("a", offset, data)
            content[offset : offset + len(data)] = data
            assert recorder.read("a", 0, len(content)) == content

        change(1, b"on the volume")
        recorder.write_back()
        real = volumeside.write_pages

        def write_pages(*arguments: Any) -> None:
            change(30, b"waits")
            change(33, b"waits, too")
            real(*arguments)
            change(36, b"again")

        with monkeypatch.context() as patch:
            patch.setattr(volumeside, "write_pages", write_pages)
            change(9, b"on its way")
            recorder.write_back()
        assert recorder.read("a", 0, len(content)) == content
        recorder.close()
    check_everywhere(primary, {**primary.contents(), "a": bytes(content)})


def test_a_page_that_arrives_while_it_is_read_is_not_missed(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume was read before the page arrived; when the pages that wait are looked at, it has."""
    with quiet_recorder(primary) as recorder:
        real = recorder.store.read_bytes

        def read_bytes_of(name: str, offset: int, buffer: memoryview) -> None:
            real(name, offset, buffer)
            recorder.write_back()

        recorder.write("a", 0, b"acknowledged")
        monkeypatch.setattr(recorder.store, "read_bytes", read_bytes_of)
        assert recorder.read("a", 0, 12) == b"acknowledged"


def test_a_page_that_arrives_while_extents_are_asked_for_is_no_hole(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        real = recorder.store.data_runs

        def data_runs(page: int, count: int) -> list[tuple[int, int]]:
            runs = list(real(page, count))
            recorder.write_back()
            return runs

        monkeypatch.setattr(recorder.store, "data_runs", data_runs)
        recorder.write("b", 0, b"x")
        assert next(iter(recorder.extents("b", 0, PAGE))) == (PAGE, False)


def test_the_callers_buffer_is_his_again(primary: Primary) -> None:
    buffer = bytearray(b"x" * PAGE)
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, buffer)
        recorder.write("a", PAGE, memoryview(buffer))
        buffer[:] = b"y" * PAGE
        assert recorder.read("a", 0, 2 * PAGE) == b"x" * 2 * PAGE
        recorder.close()
    assert primary.contents()["a"][: 2 * PAGE] == b"x" * 2 * PAGE


def test_what_lies_outside_is_refused_whole(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        size = recorder.volumes["a"].size
        head = recorder.statistics().head_lsn
        for change in (Change(size, 1, b"x"), Change(size - 1, 2, None), Change(-1, 1, b"x")):
            with pytest.raises(UsageError):
                recorder.change("a", [Change(0, 1, b"x"), change])
        with pytest.raises(UsageError):
            recorder.write("c", 0, b"x")
        with pytest.raises(UsageError):
            recorder.read("a", size - 1, 2)
        with pytest.raises(UsageError):
            list(recorder.extents("a", size, 1))
        recorder.write("a", size, b"")
        assert recorder.statistics().head_lsn == head


def test_changes_of_large_pages_and_long_writes_fit_into_frames(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame holds 64 MiB: of small changes in large pages, and of a write that no NBD client could send."""
    monkeypatch.setattr(recorder_module, "FRAME_CHANGES", 4096)
    pages, page_size, long = 1050, 65536, b"long" * ((64 << 18) + 1)
    primary = make_primary(directory, {"a": pages * page_size}, page_size)
    with Recorder(primary.journal_path) as recorder:
        recorder.change("a", [Change(page * page_size + 1, 1, b"x") for page in range(pages)])
        recorder.write("a", 3, long)
        assert recorder.read("a", 3, 4) == b"long"
    content = primary.contents()["a"]
    assert content[3 : 3 + len(long)] == long
    assert content[(pages - 1) * page_size :][:3] == b"\0x\0"
    assert volumes_at(primary.journal)["a"] == content


# Many at once


class Gate:
    """Holds the journal's fdatasyncs until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self._open, self.count = threading.Event(), threading.Event(), 0
        real = File.fdatasync

        def fdatasync(file: File) -> None:
            if file.path.endswith(".mj"):
                self.count += 1
                self.entered.set()
                assert self._open.wait(PATIENCE_SECONDS)
            real(file)

        monkeypatch.setattr(File, "fdatasync", fdatasync)

    def open(self) -> None:
        self._open.set()


def test_one_fdatasync_serves_all_flushes_that_wait(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = 30
    with quiet_recorder(primary) as recorder:
        gate = Gate(monkeypatch)
        recorder.write("a", 0, b"first")
        threads = [in_thread(recorder.flush)]
        assert gate.entered.wait(PATIENCE_SECONDS)
        written = threading.Barrier(clients + 1)
        returned: list[int] = []

        def client(number: int) -> None:
            recorder.write("a", number * PAGE, b"x")
            lsn = recorder.statistics().head_lsn
            written.wait(PATIENCE_SECONDS)
            recorder.flush()
            assert recorder.statistics().durable_lsn >= lsn
            returned.append(number)

        threads += [in_thread(partial(client, number)) for number in range(clients)]
        written.wait(PATIENCE_SECONDS)
        assert not returned, "a flush returned while no fdatasync had"
        durable = recorder.statistics().durable_lsn
        gate.open()
        join(*threads)
        assert len(returned) == clients
        assert recorder.statistics().durable_lsn > durable
        assert gate.count <= 4


def test_a_flush_of_what_is_durable_costs_nothing(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, b"x", fua=True)
        with faulty(lambda _: None) as system:
            recorder.flush()
            recorder.write_back()
            recorder.write_back()
        head = recorder.statistics().head_lsn
        assert not [call for call in system.calls if is_journal(call)]
        recorder.flush()
        assert recorder.statistics().head_lsn == head


def test_writers_wait_while_too_much_waits(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumeside, "WAITING_BYTES_MAX", 4 * (PAGE + recorder_module.PAGE_COST_BYTES))
    with quiet_recorder(primary) as recorder:
        waits = threading.Event()
        real = recorder._volumes._room.wait

        def wait(*arguments: Any) -> Any:
            waits.set()
            return real(*arguments)

        monkeypatch.setattr(recorder._volumes._room, "wait", wait)
        for number in range(4):
            recorder.write("a", number * PAGE, b"x" * PAGE)
        assert not waits.is_set()
        writer = in_thread(lambda: recorder.write("a", 9 * PAGE, b"y" * PAGE))
        assert waits.wait(PATIENCE_SECONDS)
        head = recorder.statistics().head_lsn
        assert recorder.read("a", 9 * PAGE, 1) != b"y"
        recorder.write_back()
        join(writer)
        assert recorder.statistics().head_lsn > head
        assert recorder.read("a", 9 * PAGE, 1) == b"y"


def test_a_writer_that_waits_hears_that_the_recorder_failed(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumeside, "WAITING_BYTES_MAX", PAGE)
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, b"x" * PAGE)
        waits, real, heard = threading.Event(), recorder._volumes._room.wait, []

        def wait(*arguments: Any) -> Any:
            waits.set()
            return real(*arguments)

        def write() -> None:
            try:
                recorder.write("a", 0, b"y")
            except InputOutputError as error:
                heard.append(error)

        monkeypatch.setattr(recorder._volumes._room, "wait", wait)
        writer = in_thread(write)
        assert waits.wait(PATIENCE_SECONDS)
        fault = fail_at(1, errno.EIO, lambda call: is_journal(call) and call.name == "fdatasync")
        with faulty(fault), pytest.raises(InputOutputError):
            recorder.write_back()
        join(writer)
        assert heard


def stress(primary: Primary, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client has a region of its own and knows it; flushers, an initial scan and zeros run at the same time."""
    import random

    monkeypatch.setattr(volumeside, "WAITING_BYTES_MAX", 64 * PAGE)
    monkeypatch.setattr(volumeside, "CHECKPOINT_PAGES", 40)
    monkeypatch.setattr(volumeside, "COMMIT_SECONDS", 0.002)
    region, clients = 25 * PAGE + 7, 4
    wrong: list[BaseException] = []
    models = [bytearray(pattern(1, clients * region)[number * region :][:region]) for number in range(clients)]
    stop = threading.Event()
    with Recorder(primary.journal_path) as recorder:

        def guarded(act: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    act()
                except BaseException as error:
                    wrong.append(error)

            return run

        def client(number: int) -> None:
            chance, model, origin = random.Random(number), models[number], number * region
            for _ in range(rounds):
                offset = chance.randrange(region)
                length = chance.randrange(1, min(region - offset, 9 * PAGE) + 1)
                if chance.random() < 0.6:
                    data = chance.randbytes(length)
                    recorder.write("a", origin + offset, data)
                    model[offset : offset + length] = data
                elif chance.random() < 0.5:
                    recorder.zero("a", origin + offset, length)
                    model[offset : offset + length] = bytes(length)
                else:
                    assert recorder.read("a", origin + offset, length) == model[offset : offset + length]
                    runs = list(recorder.extents("a", origin + offset, length))
                    assert sum(run for run, _ in runs) == length

        def flush() -> None:
            while not stop.is_set():
                recorder.flush()

        threads = [in_thread(guarded(partial(client, number))) for number in range(clients)]
        others = [in_thread(guarded(flush)), in_thread(guarded(InitialScan(recorder).run))]
        join(*threads)
        stop.set()
        join(*others)
        assert not wrong, wrong
        assert recorder.read("a", 0, clients * region) == b"".join(models)
    check_everywhere(primary, {"a": b"".join(models)})


def test_many_threads_at_once(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stress(make_primary(directory, {"a": pattern(1, 4 * (25 * PAGE + 7))}), 60, monkeypatch)


@pytest.mark.soak
def test_soak_many_threads_at_once(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stress(make_primary(directory, {"a": pattern(1, 4 * (25 * PAGE + 7))}), 20_000, monkeypatch)


# The end


def test_a_closed_recorder_accepts_nothing(primary: Primary) -> None:
    """Its locks are gone: another may use the same journal."""
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write("a", 0, b"x")
    recorder.close()
    recorder.close()
    with quiet_recorder(primary) as other:
        files = os.listdir(primary.journal.files_path)
        for act in (lambda: recorder.write("a", 0, b"late"), recorder.commit, lambda: recorder.zero("a", 0, 30 * PAGE)):
            with pytest.raises(UsageError, match="this recorder is closed"):
                act()
        assert os.listdir(primary.journal.files_path) == files
        other.write("a", 0, b"y")
        other.close()
    check_everywhere(primary, primary.contents())


def test_the_thread_commits_and_writes_back_by_itself(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumeside, "COMMIT_SECONDS", 0.001)
    recorder = Recorder(primary.journal_path)
    try:
        arrived, real = threading.Event(), recorder._volumes.waiting.finish

        def finish() -> None:
            real()
            arrived.set()

        monkeypatch.setattr(recorder._volumes.waiting, "finish", finish)
        recorder.write("a", 0, b"by itself")
        assert arrived.wait(PATIENCE_SECONDS)
        assert primary.contents()["a"][:9] == b"by itself"
    finally:
        drop(recorder)
    with quiet_recorder(primary) as again:
        assert again.read("a", 0, 9) == b"by itself"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_thread_ends_the_recorder(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would acknowledge, and never write back."""
    monkeypatch.setattr(volumeside, "COMMIT_SECONDS", 0.001)

    def write_pages(*_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(volumeside, "write_pages", write_pages)
    recorder = Recorder(primary.journal_path)
    try:
        recorder.write("a", 0, b"x")
        assert recorder.ending.wait(PATIENCE_SECONDS)
        with pytest.raises(InputOutputError):
            recorder.write("a", 0, b"y")
    finally:
        drop(recorder)


@pytest.mark.parametrize(
    ("runs", "waiting", "expected"),
    [
        ([], [], [(2, 8, True)]),
        ([(0, 20)], [], [(2, 8, False)]),
        ([(3, 2)], [], [(2, 3, True), (3, 5, False), (5, 8, True)]),
        ([(3, 2)], [(2, False), (4, True)], [(2, 3, False), (3, 4, False), (4, 5, True), (5, 8, True)]),
        ([(2, 1), (7, 1)], [(7, True)], [(2, 3, False), (3, 7, True), (7, 8, True)]),
        ([], [(7, False)], [(2, 7, True), (7, 8, False)]),
    ],
)
def test_what_waits_lies_over_what_the_volume_has(runs: Any, waiting: Any, expected: Any) -> None:
    assert list(overlaid(runs, waiting, 2, 8)) == expected


def test_the_time_is_kept_before_every_hole(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discards may be slow, and a volume must not look younger than the newest frame."""
    events = []
    with quiet_recorder(primary) as recorder:
        recorder.change("a", [Change(number * 2 * PAGE, PAGE, None) for number in range(5)])
        pages, hole = recorder._volumes.waiting.generations[0], recorder._volumes.waiting.hole
        real = recorder.store.zero
        monkeypatch.setattr(recorder.store, "zero", lambda page, count: (events.append("zero"), real(page, count)))
        write_pages(recorder.store, pages, hole, lambda: events.append("pause"))
    assert events == ["pause", *["pause", "zero"] * 5]
