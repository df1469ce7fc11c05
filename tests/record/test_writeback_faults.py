"""Faults of a live recorder: what fails loses nothing, ends the recorder where it must, and is redone by the next."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from mirrortool.errors import HostError, InputOutputError, NoSpaceError
from mirrortool.record import volumeside
from mirrortool.record.recorder import Recorder
from tests.fakes.disk import Call, fail_at, faulty, is_checkpoint, is_journal, is_sums, is_volume, lose_at
from tests.fakes.journals import set_boot_id
from tests.fakes.recorders import based, check_everywhere, quiet_recorder
from tests.fakes.volumes import PAGE, Primary, make_primary, pattern, small_journal_files

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def primary(directory: str) -> Primary:
    return based(make_primary(directory, {"a": pattern(1, 40 * PAGE + 9), "b": bytes(9 * PAGE)}))


class Client:
    """Changes one volume after another, and remembers what was acknowledged."""

    def __init__(self, primary: Primary) -> None:
        self.primary = primary
        self.contents = {name: bytearray(content) for name, content in primary.contents().items()}
        self.recorder: Recorder | None = None
        self.failures: list[HostError] = []
        self.number = 0

    def write(self, recorder: Recorder, name: str, offset: int, data: bytes) -> None:
        recorder.write(name, offset, data)
        self.contents[name][offset : offset + len(data)] = data

    def check(self, recorder: Recorder) -> None:
        for name, content in self.contents.items():
            assert recorder.read(name, 0, len(content)) == content

    def state(self) -> dict[str, bytes]:
        return {name: bytes(content) for name, content in self.contents.items()}

    def work(self, recorder: Recorder) -> None:
        """Everything once or twice; what fails may be tried again, and does not count as done."""
        steps: list[Callable[[Recorder], object]] = [self._write, self._zero, Recorder.flush]
        steps += [self._write, self._back, self._check, self._write]
        for step in steps * 2:
            try:
                step(recorder)
            except HostError as error:
                self.failures.append(error)
                self.check(recorder)

    def _write(self, recorder: Recorder) -> None:
        self.number += 1
        self.write(recorder, "a", self.number * 700, b"%d" % self.number * 300)

    def _zero(self, recorder: Recorder) -> None:
        self.number += 1
        recorder.zero("a", self.number * PAGE, 2 * PAGE)
        self.contents["a"][self.number * PAGE : (self.number + 2) * PAGE] = bytes(2 * PAGE)

    def _back(self, recorder: Recorder) -> None:
        recorder.write_back(checkpoint=True)

    def _check(self, recorder: Recorder) -> None:
        self.check(recorder)


FAULTS = [
    *[("pwritev", is_journal, number) for number in range(1, 9)],
    *[("pwrite", is_journal, number) for number in (1, 2)],
    *[("pwritev", is_volume, number) for number in range(1, 5)],
    *[("punch", is_volume, number) for number in (1, 2)],
    *[("pwrite", is_sums, number) for number in range(1, 5)],
    *[("fdatasync", is_sums, number) for number in (1, 2, 5)],
    *[("pwrite", is_checkpoint, number) for number in (1, 2)],
    *[("fdatasync", is_checkpoint, number) for number in (1, 2)],
    *[("rename", is_checkpoint, number) for number in (1, 2)],
]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(("name", "where", "number"), FAULTS)
@pytest.mark.parametrize("clean", [True, False])
def test_a_call_that_fails_once_loses_nothing(
    primary: Primary, name: str, where: Any, number: int, code: int, clean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_journal_files(monkeypatch, 2000)
    client = Client(primary)
    with quiet_recorder(primary) as recorder:
        fault = fail_at(number, code, lambda call: call.name == name and where(call))
        with faulty(fault):
            client.work(recorder)
        has_failed = recorder.failure is not None
        assert not has_failed or (name == "fdatasync" and where is is_sums), "it is tried again"
        if not has_failed:
            client.check(recorder)
            recorder.write_back()
            client.write(recorder, "b", 3, b"later")
            recorder.flush()
            if clean:
                recorder.close()
                assert primary.contents() == client.contents
    with quiet_recorder(primary) as recorder:
        assert recorder.redone == 0 or has_failed or not clean
        client.check(recorder)
        recorder.close()
    check_everywhere(primary, client.state())


def test_the_faults_of_the_table_happen(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would prove nothing."""
    small_journal_files(monkeypatch, 2000)
    with quiet_recorder(primary) as recorder, faulty(lambda _: None) as system:
        Client(primary).work(recorder)
    for name, where, number in FAULTS:
        assert sum(call.name == name and where(call) for call in system.calls) >= number, (name, where, number)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_volume_that_fails_refuses_writes_until_it_can_be_written(primary: Primary, code: int) -> None:
    client = Client(primary)
    is_broken = True

    def fault(call: Call) -> None:
        if is_broken and is_volume(call) and call.name == "pwritev":
            raise OSError(code, os.strerror(code))

    expected = {errno.EIO: InputOutputError, errno.ENOSPC: NoSpaceError}[code]
    with quiet_recorder(primary) as recorder, faulty(fault):
        client.write(recorder, "a", 5, b"acknowledged")
        for _ in range(2):
            with pytest.raises(expected):
                recorder.write_back()
            with pytest.raises(expected):
                recorder.write("a", 0, b"x")
            with pytest.raises(expected):
                recorder.zero("a", 0, 1)
            recorder.flush()
            client.check(recorder)
            assert recorder.statistics().problem and not recorder.failure
        is_broken = False
        recorder.write_back()
        assert not recorder.statistics().problem
        client.write(recorder, "a", 7, b"again")
        recorder.close()
    check_everywhere(primary, client.state())


def test_while_a_volume_fails_what_came_meanwhile_is_committed_and_durable(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was acknowledged before the write-back failed, and perhaps no client asks for a flush."""
    client = Client(primary)
    with quiet_recorder(primary) as recorder:

        def write_pages(*_: object) -> None:
            if not recorder.statistics().problem:  # the first attempt; later changes are refused
                client.write(recorder, "b", 7, b"meanwhile")
            raise InputOutputError("no", where=primary.paths["a"])

        with monkeypatch.context() as patch:
            patch.setattr(volumeside, "write_pages", write_pages)
            client.write(recorder, "a", 5, b"on its way")
            for attempt in range(3):
                with pytest.raises(InputOutputError):
                    recorder.write_back()
                now = recorder.statistics()
                is_committed = now.durable_lsn == now.head_lsn == now.commit_lsn
                assert is_committed == (attempt > 0)
        client.check(recorder)
    with quiet_recorder(primary) as recorder:  # after kill -9
        client.check(recorder)
        recorder.close()
    check_everywhere(primary, client.state())


@pytest.mark.parametrize("rotated", [False, True])
def test_a_failed_fdatasync_of_the_journal_is_the_end(
    primary: Primary, rotated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never tried again; nothing more is acknowledged, and nothing that was not durable is on a volume."""
    small_journal_files(monkeypatch, 3000)
    before = primary.contents()
    with quiet_recorder(primary) as recorder:
        fault = fail_at(1, errno.EIO, lambda call: is_journal(call) and call.name == "fdatasync")
        with faulty(fault) as system:
            recorder.write("a", 0, b"lost")
            with pytest.raises(InputOutputError):
                write_until_a_file_is_full(recorder) if rotated else recorder.flush()
            assert recorder.failure and recorder.ending.is_set()
            for act in (
                recorder.flush,
                recorder.write_back,
                recorder.commit,
                lambda: recorder.write("a", 0, b"x"),
                lambda: recorder.zero("a", 0, 40 * PAGE),
            ):
                with pytest.raises(InputOutputError):
                    act()
            assert rotated or recorder.read("a", 1, 3) == b"ost"
            recorder.close()
        assert sum(is_journal(call) and call.name == "fdatasync" for call in system.calls) == 1
        assert not any(is_volume(call) and call.name in ("pwritev", "punch") for call in system.calls)
    assert primary.contents() == before
    assert primary.journal.clean_end is None


def test_what_a_failed_fdatasync_of_the_journal_dropped_is_written_again_by_the_next_start(primary: Primary) -> None:
    """Until the next boot the kernel reads it, and calls it durable: what is built on it must not be lost with it."""
    client = Client(primary)
    written: list[bool] = []
    fault = lose_at(1, lambda call: bool(written) and is_journal(call) and call.name == "fdatasync", share=1.0)
    with faulty(fault) as system:
        with quiet_recorder(primary) as recorder:
            client.write(recorder, "a", 5, b"not durable")
            written.append(True)
            with pytest.raises(InputOutputError):
                recorder.flush()
        with quiet_recorder(primary) as recorder:
            client.write(recorder, "a", 9 * PAGE, b"flushed later")
            recorder.flush()
        system.disk.lose_all()
        os.truncate(primary.journal.seen_path, 0)  # of which this left another time than a kernel would
    with quiet_recorder(primary) as recorder:
        assert recorder.read("a", 5, 11) == b"not durable" and recorder.read("a", 9 * PAGE, 13) == b"flushed later"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_fdatasync_of_a_volume_is_the_end_and_the_next_start_redoes(primary: Primary, code: int) -> None:
    """The kernel drops what it could not write, also of earlier write-backs, and the next fdatasync succeeds."""
    client = Client(primary)
    with quiet_recorder(primary) as recorder:
        fault = lose_at(1, lambda call: is_volume(call) and call.name == "fdatasync", code, share=1.0)
        with faulty(fault) as system:
            client.write(recorder, "a", 5, b"of an earlier write-back")
            recorder.write_back()
            client.write(recorder, "a", 9 * PAGE, b"of this one")
            with pytest.raises(HostError):
                recorder.write_back(checkpoint=True)
            assert recorder.failure
            with pytest.raises(InputOutputError):
                recorder.write("a", 0, b"x")
            recorder.close()
            system.disk.forget_cache()
            os.truncate(primary.journal.seen_path, 0)  # of which this left another time than a kernel would
    with quiet_recorder(primary) as recorder:
        assert recorder.redone == 2
        client.check(recorder)
        recorder.close()
    check_everywhere(primary, client.state())


def write_until_a_file_is_full(recorder: Recorder) -> None:
    for number in range(40):
        recorder.write("a", number * PAGE, os.urandom(PAGE))


def test_an_append_that_can_neither_be_done_nor_undone_is_the_end(primary: Primary) -> None:
    begun: list[Call] = []

    def fault(call: Call) -> object:
        if not is_journal(call) or call.name not in ("pwritev", "ftruncate"):
            return None
        begun.append(call)
        if len(begun) == 1:  # some of it arrives, which is to be cut off
            return lambda buffers: [b"".join(buffers)[:100]]
        raise OSError(errno.EIO, "no")

    client = Client(primary)
    with quiet_recorder(primary) as recorder:
        client.write(recorder, "a", 0, b"before")
        recorder.flush()
        with faulty(fault), pytest.raises(InputOutputError):
            recorder.write("a", 0, b"lost")
        assert recorder.failure and recorder.ending.is_set()
        client.check(recorder)
    with quiet_recorder(primary) as recorder:
        client.check(recorder)
        recorder.close()
    check_everywhere(primary, client.state())


@pytest.mark.parametrize("call", ["punch", "fdatasync", "pwrite"])
def test_a_large_zero_that_dies_between_journal_and_volume_is_redone(primary: Primary, call: str) -> None:
    client = Client(primary)

    def fault(each: Call) -> None:
        if is_armed and each.name == call and not is_journal(each):
            raise OSError(errno.EIO, "no")

    with quiet_recorder(primary) as recorder:
        is_armed = False
        client.write(recorder, "a", 0, b"before")
        with faulty(fault):
            recorder.write_back(checkpoint=True)
            is_armed = True
            with pytest.raises(InputOutputError):
                recorder.zero("a", PAGE, 38 * PAGE)
            is_armed = False
    client.contents["a"][PAGE : 39 * PAGE] = bytes(38 * PAGE)
    with quiet_recorder(primary) as recorder:
        if recorder.read("a", PAGE, 1) == b"\0":
            assert recorder.redone
            client.check(recorder)
            recorder.close()
            check_everywhere(primary, client.state())
        else:
            assert call != "punch", "only what failed before it was journaled may be missing"


def test_a_zero_of_more_than_64_mib_is_one_operation_and_redone_after_a_crash(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its true size."""
    monkeypatch.undo()
    size = (80 << 20) + 5
    primary = make_primary(directory, {"a": size}, 4096)
    for offset in (0, 5 << 20, 70 << 20):
        primary.write("a", offset, b"data" * 2000)
    based(primary)

    def fault(call: Call) -> None:
        if call.name == "punch" and is_volume(call):
            raise OSError(errno.EIO, "no")

    with quiet_recorder(primary) as recorder:
        head = recorder.statistics().head_lsn
        with faulty(fault), pytest.raises(InputOutputError):
            recorder.zero("a", 3, size - 3)
        assert recorder.statistics().head_lsn <= head + 5
    set_boot_id(primary.journal, "before")
    with quiet_recorder(primary) as recorder:
        assert recorder.redone
        assert recorder.read("a", 0, size) == b"dat" + bytes(size - 3)
        recorder.close()
    check_everywhere(primary, {"a": b"dat" + bytes(size - 3)})
