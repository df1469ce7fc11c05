"""A long-running command as its users have it: a process that is started, killed and started again."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 60.0


class Daemon:
    """`mirrortool` with these arguments.

    Attributes:
        lines: what it printed on stderr, line by line, over all its starts.
    """

    def __init__(self, *arguments: object, prefix: tuple[str, ...] = ()) -> None:
        """Nothing is started; `prefix` is put before the command."""
        self._command = [*prefix, sys.executable, "-m", "mirrortool", *(str(argument) for argument in arguments)]
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

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
        self._process = subprocess.Popen(
            self._command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        atexit.register(self._process.kill)  # whatever fails; of one that was waited for it does nothing
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """kill -9; it is gone when this returns."""
        self.process.kill()
        self._join()

    def stop(self, code: int = 0) -> None:
        """SIGTERM: it ends with this code, and without a traceback."""
        assert self.is_running, self.lines[-20:]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not end: {self.lines[-20:]}") from None
        self._join()
        assert self.process.returncode == code, (self.process.returncode, self.lines[-20:])
        self.check()

    def check(self) -> None:
        """It never printed a traceback."""
        assert not any("Traceback" in line or "a bug in mirrortool" in line for line in self.lines), self.lines[-60:]

    def _join(self) -> None:
        self.process.wait()
        assert self._reader
        self._reader.join()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        for line in process.stderr:
            self.lines.append(line.rstrip("\n"))
