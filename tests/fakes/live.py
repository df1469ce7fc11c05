"""`mirrortool record --nbd` as its users have it: a process, from its start to a clean stop or to kill -9."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mirrortool.journal.directory import Journal
from mirrortool.record.controlsocket import ask
from tests.fakes.daemon import PROGRAM, Daemon
from tests.fakes.served import peak_bytes


class LiveRecorder(Daemon):
    """A recorder that serves at `socket`; `with` starts it and, unless the block failed, finishes it.

    Attributes:
        lines: what it printed on stderr since its newest start, line by line.
    """

    def __init__(
        self, journal: Path, *options: object, address: str | None = None, program: Sequence[str] = PROGRAM
    ) -> None:
        """Nothing is started; the socket lies beside the journal unless there is another address.

        Args:
            program: the beginning of the command line.
        """
        self.journal = journal
        self.socket = journal.parent / "s"
        self.address = address or f"unix:{self.socket}"
        super().__init__("record", journal, "--nbd", self.address, *options, program=program)

    def __exit__(self, kind: object, *_: object) -> None:
        if self.is_running and kind is None:
            self.finish()
        elif self.is_running:
            self.kill()

    @property
    def is_serving(self) -> bool:
        """Whether clients can come, or could."""
        return any(line.startswith("serving volume ") for line in self.lines)

    def uri(self, name: str = "disk") -> str:
        """The address of an export, for clients of the NBD project's and QEMU."""
        return f"nbd+unix:///{name}?socket={self.socket}"

    def begin(self) -> None:
        """Start the process, and wait for nothing."""
        self.lines = []
        super().start()

    def start(self) -> None:
        """Start it, and wait until clients can come."""
        self.begin()
        self.wait_until(lambda: self.is_serving)

    def finish(self) -> str:
        """Stop it cleanly once the initial scan is complete: only then there is something to prove."""
        self.wait_for_base()
        return self.stop()

    def wait_for_base(self) -> None:
        """Until every volume is wholly journaled, and no kill of the recorder can undo that."""

        def is_complete() -> bool:
            told = ask(str(self.journal), {"request": "status"})
            kept = Journal(str(self.journal)).recorder_checkpoint()
            return told is not None and not told["incomplete"] and kept is not None and not kept.incomplete

        self.wait_until(is_complete)

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        return peak_bytes(self.process.pid)

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))
