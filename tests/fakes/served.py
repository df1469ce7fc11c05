"""`mirrortool serve` as its users have it: a process, from its start to a clean stop or to kill -9."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.fakes.daemon import PROGRAM, Daemon


class Served(Daemon):
    """A server of a journal or mirror, at a socket; `with` starts it, waits until clients can come, and ends it."""

    def __init__(self, path: Path, socket: Path, *options: object, program: Sequence[str] = PROGRAM) -> None:
        self.socket = socket
        super().__init__("serve", path, "--nbd", f"unix:{socket}", *options, program=program)

    def start(self) -> None:
        """Start it, and wait until clients can come."""
        self.lines = []
        super().start()
        self.wait_for("next: ")

    def uri(self, name: str = "disk") -> str:
        """The address of an export, for clients of the NBD project's and QEMU."""
        return f"nbd+unix:///{name}?socket={self.socket}"

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        return peak_bytes(self.process.pid)


def peak_bytes(process: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")
