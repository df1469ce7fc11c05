"""A long-running command as its users have it: a process, from its start to SIGTERM or to kill -9, again and again."""

from __future__ import annotations

import atexit
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.fakes.waiting import PATIENCE_SECONDS, wait_until

PROGRAM = (sys.executable, "-m", "mirrortool")
SMALL_FILES = (sys.executable, str(Path(__file__).with_name("small_files.py")))
"""The same with journal files of 1 MiB, if it records."""
_HARD_DISK = (sys.executable, str(Path(__file__).with_name("hard_disk.py")))
SLOW_DISK, FULL_DISK = (*_HARD_DISK, "slow"), (*_HARD_DISK, "full")
"""The same on a disk that is slow, and on one that has no room for volumes."""


class Daemon:
    """`mirrortool` with these arguments; `with` starts it, and ends it cleanly unless the block did that, or failed.

    Attributes:
        lines: what it printed on stderr, line by line, over all its starts.
    """

    def __init__(
        self,
        *arguments: object,
        program: Sequence[str] = PROGRAM,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started.

        Args:
            program: the beginning of the command line.
            directory, environment: in which it runs; by default those of the tests.
        """
        self._program, self._arguments = program, arguments
        self._directory, self._environment = directory, environment
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._has_been_ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.kill()
        elif not self._has_been_ended:
            self.stop()

    @property
    def process(self) -> subprocess.Popen[str]:
        """Of the newest start."""
        assert self._process is not None
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended_with(self) -> int | None:
        """What its newest start ended with; None if it runs, or was never started."""
        return self._process.poll() if self._process else None

    def command(self) -> list[object]:
        """The command line."""
        return [*self._program, *self._arguments]

    def catches(self, signal_number: int) -> bool:
        """Whether the signal does not simply end it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (caught,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return bool(int(caught, 16) >> (signal_number - 1) & 1)

    def start(self) -> None:
        """Start it; it must not be running."""
        assert not self.is_running
        self._has_been_ended = False
        self._process = subprocess.Popen(
            [str(word) for word in self.command()],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
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
        self._has_been_ended = True
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
        self._has_been_ended = True
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def check(self) -> None:
        """It never printed a traceback."""
        assert not any("Traceback" in line or "a bug in mirrortool" in line for line in self.lines), self.lines[-60:]

    def wait_until(self, holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Until something holds that this process is about to bring about."""

        def does_hold() -> bool:
            has_ended = not self.is_running
            if has_ended and self._reader:
                self._reader.join()  # its last words count
            held = bool(holds())
            assert held or not has_ended, (self.process.returncode, self.lines[-20:])
            return held

        wait_until(does_hold, seconds, told=lambda: self.lines[-20:])

    def wait_for(self, text: str) -> None:
        """Until a line on stderr has this text."""
        self.wait_until(lambda: any(text in line for line in self.lines))

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr
        for line in process.stderr:
            self.lines.append(line.rstrip("\n"))


def children_of(process: int) -> list[int]:
    """What all threads of a process have started and not waited for; nothing if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        tasks = Path(f"/proc/{process}/task").iterdir()
        return [int(each) for task in tasks for each in (task / "children").read_text(encoding="ascii").split()]
    return []
