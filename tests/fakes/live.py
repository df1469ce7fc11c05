"""`mirrortool record --nbd` as its users have it: a process, from its start to a clean stop or to kill -9."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from mirrortool.record.control import ask

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class LiveRecorder:
    """A recorder that serves at `socket`; `with` starts it and, unless the block failed, finishes it.

    Attributes:
        lines: what it printed on stderr so far, line by line.
        result: what it printed on stdout, once it has ended.
    """

    def __init__(self, journal: Path, *options: object, address: str | None = None) -> None:
        """Nothing is started; the socket lies beside the journal unless there is another address."""
        self.journal = journal
        self.socket = journal.parent / "s"
        self.address = address or f"unix:{self.socket}"
        self.options = options
        self.lines: list[str] = []
        self.result = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        # Set when clients can come, and when it has ended.
        self._is_decided = threading.Event()

    def __enter__(self) -> LiveRecorder:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.is_running and kind is None:
            self.finish()
        elif self.is_running:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[str]:
        """Of the newest start."""
        assert self._process is not None
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def uri(self, name: str = "disk") -> str:
        """The address of an export, for clients of the NBD project's and QEMU."""
        return f"nbd+unix:///{name}?socket={self.socket}"

    def command(self) -> list[object]:
        """The command line."""
        return [sys.executable, "-m", "mirrortool", "record", self.journal, "--nbd", self.address, *self.options]

    def begin(self) -> None:
        """Start the process, and wait for nothing."""
        self.lines = []
        self._is_decided = threading.Event()
        self._process = subprocess.Popen(
            [str(word) for word in self.command()], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        atexit.register(self._process.kill)  # whatever fails; of one that was waited for it does nothing
        self._reader = threading.Thread(target=self._read, args=(self._process, self._is_decided), daemon=True)
        self._reader.start()

    def start(self) -> None:
        """Start it, and wait until clients can come."""
        self.begin()
        assert self._is_decided.wait(START_SECONDS), self.lines
        assert any(line.startswith("serving volume ") for line in self.lines), self.lines

    def stop(self, signal_number: int = signal.SIGTERM, code: int = 0) -> str:
        """Stop it cleanly; what it printed on stdout."""
        self.process.send_signal(signal_number)
        return self.wait(code)

    def finish(self) -> str:
        """Stop it cleanly once the base is complete: only then there is something to prove."""
        self.wait_for_base()
        return self.stop()

    def wait_for_base(self) -> None:
        """Until every volume has a complete base."""
        pause = threading.Event()
        for _ in range(3000):
            told = ask(str(self.journal), {"request": "status"})
            if told and not told["incomplete"]:
                return
            assert self.is_running, self.lines
            pause.wait(0.02)
        raise AssertionError(f"the base scan does not end: {self.lines}")

    def wait(self, code: int = 0) -> str:
        """Until it ends by itself, with this code and no traceback; what it printed on stdout."""
        assert self._reader
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not end: {self.lines}") from None
        self._reader.join()
        assert self.process.returncode == code, (self.process.returncode, self.lines)
        assert not any("Traceback" in line for line in self.lines), self.lines
        return self.result

    def kill(self) -> None:
        """kill -9; it is gone when this returns."""
        assert self._reader
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Until a line on stderr has this text."""
        pause = threading.Event()
        for _ in range(int(seconds / 0.02)):
            if any(text in line for line in self.lines):
                return
            assert self.is_running, self.lines
            pause.wait(0.02)
        raise AssertionError(f"{text!r} never came: {self.lines}")

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no VmHWM")

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def _read(self, process: subprocess.Popen[str], is_decided: threading.Event) -> None:
        assert process.stderr and process.stdout
        for line in process.stderr:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("serving volume "):
                is_decided.set()
        self.result = process.stdout.read()
        is_decided.set()
