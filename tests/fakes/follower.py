"""`mirrortool replay --follow` as its users have it: a process, from its start to SIGTERM or to kill -9."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mirrortool.errors import MirrortoolError
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror

PATIENCE_SECONDS = 60.0


class Follower:
    """A replay that follows; `with` starts it, and ends it cleanly unless the block failed.

    Attributes:
        lines: what it printed on stderr so far.
    """

    def __init__(self, journal: Path, mirror: Path, *options: object) -> None:
        self.journal, self.mirror, self.options = journal, mirror, options
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Follower:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[str]:
        """Of the newest start."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        command = [sys.executable, "-m", "mirrortool", "replay", self.journal, self.mirror, "--follow", *self.options]
        self._process = subprocess.Popen(
            [str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        atexit.register(self._process.kill)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def stop(self, signal_number: int = signal.SIGTERM, code: int = 0) -> str:
        """End it cleanly; what it printed on stdout."""
        assert self.process.poll() is None, (self.process.returncode, self.lines)
        self.process.send_signal(signal_number)
        return self.wait(code)

    def wait(self, code: int = 0) -> str:
        """Until it ends, with this code and without a traceback; what it printed on stdout."""
        assert self._reader and self.process.stdout
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        assert self.process.returncode == code, (self.process.returncode, self.lines)
        assert not any("Traceback" in line for line in self.lines), self.lines
        return self.process.stdout.read()

    def kill(self) -> None:
        """kill -9; it is gone when this returns."""
        assert self._reader
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def checkpoint(self) -> Checkpoint | None:
        """The mirror's, now; None if there is no mirror yet."""
        try:
            return Mirror(str(self.mirror)).checkpoint
        except MirrortoolError:
            return None

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Until something holds that this process is about to bring about."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.process.poll() is None, (self.process.returncode, self.lines)
            assert time.monotonic() < ends, self.lines
            time.sleep(0.01)

    def wait_for_commit(self, lsn: int) -> None:
        """Until the mirror is at this commit."""

        def is_there() -> bool:
            checkpoint = self.checkpoint()
            return checkpoint is not None and checkpoint.position.lsn == lsn and checkpoint.is_consistent

        self.wait_until(is_there)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        self.lines.extend(line.rstrip("\n") for line in process.stderr)
