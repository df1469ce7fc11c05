"""The file of `replay --trace`, where there is no room for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirrortool.cli import replayfollow, replaytrace
from mirrortool.cli.main import main
from mirrortool.cli.replaytrace import TraceFile
from mirrortool.errors import NoSpaceError, host_error
from mirrortool.openfile import Buffer, File
from mirrortool.replay.tracing import Divided, Drained, Ended, Started
from mirrortool.trace.jsonlines import encode
from mirrortool.trace.proof import Prover
from tests.fakes.journals import PAGE, Commit, Write, make_journal

STARTED = Started("J", "M", 512, 1)
DIVIDED = Divided(1, "equal", 1, 1, "op", "buffered")


class SmallDisk:
    """A disk that has room for no trace larger than `room`."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.refused = 0
        self._pwrite = File.pwrite
        patch.setattr(File, "pwrite", lambda file, data, offset: self._write(file, data, offset))

    def _write(self, file: File, data: Buffer, offset: int) -> None:
        if os.path.basename(file.path) == "trace" and offset + len(data) > self.room:
            self._pwrite(file, memoryview(data)[: max(0, self.room - offset)], offset)
            self.refused += 1
            held = memoryview(data)  # as what a traceback holds on to
            raise _full(file.path, held)
        self._pwrite(file, data, offset)


class _Full(OSError):
    held: memoryview


def _full(path: str, held: memoryview) -> Exception:
    cause = _Full(errno.ENOSPC, os.strerror(errno.ENOSPC))
    cause.held = held
    error = host_error(cause, path, "write")
    error.__cause__ = cause
    return error


def test_what_a_full_disk_refuses_ends_that_replay_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No later line of it follows, also when there is room again, so that none seems to be missing between them."""
    monkeypatch.setattr(replaytrace, "_BUFFER_BYTES", 1)
    disk = SmallDisk(monkeypatch, len(encode(STARTED)) + 5)
    with TraceFile(str(tmp_path / "trace")) as trace:
        trace.begin()
        trace.write(STARTED)
        with pytest.raises(NoSpaceError) as held:
            trace.write(DIVIDED)
        trace.write(Drained(2, 3))  # of a task that has not yet heard of it
        disk.room = 1 << 20
        trace.write(Ended(2, 4))
        for record in (STARTED, DIVIDED, Ended(0, 5)):
            trace.write(record)
        assert held.value.exit_code == NoSpaceError.exit_code
    expected = [STARTED, DIVIDED, STARTED, DIVIDED, Ended(0, 5)]
    assert (tmp_path / "trace").read_bytes() == b"".join(map(encode, expected))
    assert disk.refused == 1


def test_a_replay_that_is_killed_leaves_what_was_drained(tmp_path: Path) -> None:
    """However little that is: even of its first moment, the file is a trace."""
    path = tmp_path / "trace"
    with TraceFile(str(path)) as trace:
        trace.begin()
        for record in (STARTED, DIVIDED, Drained(0, 2)):
            trace.write(record)
            assert path.read_bytes().endswith(encode(record))
            assert Prover(str(path)).run().cut_off == 1


def test_a_replay_that_cannot_begin_leaves_an_earlier_trace_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(encode(STARTED) + encode(DIVIDED))
    with TraceFile(str(path)) as trace:
        trace.write(Started("J2", "M2", 512, 1))
    assert path.read_bytes() == encode(STARTED) + encode(DIVIDED)


def test_a_replay_whose_trace_fills_the_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replaytrace, "_BUFFER_BYTES", 1000)
    monkeypatch.chdir(tmp_path)
    make_journal("J", {"a": 90 * PAGE}, [[Write("a", n, b"x" * PAGE), Commit()] for n in range(90)])
    SmallDisk(monkeypatch, 5000)
    assert main(["replay", "J", "M", "--unit", "op", "--trace", "trace", "-q"]) == NoSpaceError.exit_code
    error = capsys.readouterr().err
    assert "trace: cannot write: No space left on device" in error
    assert len(error.splitlines()) == 1
    assert Prover("trace").run().is_proved


def test_a_follower_whose_trace_fills_the_disk_continues_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replaytrace, "_BUFFER_BYTES", 1000)
    monkeypatch.setattr(replayfollow, "_PAUSE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    make_journal("J", {"a": 90 * PAGE}, [[Write("a", n, b"x" * PAGE), Commit()] for n in range(90)])
    disk = SmallDisk(monkeypatch, 5000)
    write = disk._write

    def freed_later(file: File, data: Buffer, offset: int) -> None:
        if disk.refused == 3:
            disk.room = 1 << 20
        write(file, data, offset)

    monkeypatch.setattr(disk, "_write", freed_later)
    options = ["--follow", "--until", "180", "--unit", "op", "--trace", "trace", "-q"]
    assert main(["replay", "J", "M", *options]) == 0
    assert capsys.readouterr().err.count("retrying until there is space") == 1
    proof = Prover("trace").run()
    assert (proof.is_proved, proof.replays, proof.cut_off) == (True, 2, 1)
