"""A service manager that hears what sd_notify(3) says."""

from __future__ import annotations

import select
import socket

WAIT_SECONDS = 30.0


class Manager:
    """Listens as systemd does."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def wait(self) -> list[str]:
        """What came since, which is something."""
        assert select.select([self._socket], [], [], WAIT_SECONDS)[0], "nothing came"
        return self.heard()

    def heard(self) -> list[str]:
        """What came since; a datagram is there when its sender continues."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return found
