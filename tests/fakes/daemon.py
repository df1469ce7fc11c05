"""A long-running command as its users have it: a process, from its start to SIGTERM or to kill -9, again and again."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

PATIENCE_SECONDS = 60.0


class Daemon:
    """`mirrortool` with these arguments; `with` starts it, and ends it cleanly unless the block failed.

    Attributes:
        lines: what it printed on stderr, line by line, over all its starts.
    """

    def __init__(self, *arguments: object) -> None:
        """Nothing is started."""
        self._command = [sys.executable, "-m", "mirrortool", *(str(argument) for argument in arguments)]
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
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

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it must not be running."""
        assert not self.is_running
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        atexit.register(self._process.kill)  # whatever fails; of one that was waited for it does nothing
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def stop(self, signal_number: int = signal.SIGTERM, code: int = 0) -> str:
        """End it cleanly; what it printed on stdout."""
        assert self.is_running, (self.process.returncode, self.lines[-20:])
        self.process.send_signal(signal_number)
        return self.wait(code)

    def wait(self, code: int = 0) -> str:
        """Until it ends, with this code and without a traceback; what it printed on stdout."""
        assert self._reader and self.process.stdout
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not end: {self.lines[-20:]}") from None
        self._reader.join()
        assert self.process.returncode == code, (self.process.returncode, self.lines[-20:])
        self.check()
        return self.process.stdout.read()

    def kill(self) -> None:
        """kill -9; it is gone when this returns."""
        assert self._reader
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def check(self) -> None:
        """It never printed a traceback."""
        assert not any("Traceback" in line or "a bug in mirrortool" in line for line in self.lines), self.lines[-60:]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Until something holds that this process is about to bring about."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.is_running, (self.process.returncode, self.lines[-20:])
            assert time.monotonic() < ends, self.lines[-20:]
            time.sleep(0.01)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        for line in process.stderr:
            self.lines.append(line.rstrip("\n"))
