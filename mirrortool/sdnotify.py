"""Tells a service manager how a long-running command stands: sd_notify(3), a datagram to the socket in $NOTIFY_SOCKET.

Rule: nobody listening, or nobody answering, never fails the program; without the variable nothing is sent.
Not here: what a unit looks like (cli/unit.py); $NOTIFY_SOCKET is given by the caller, which reads the environment.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from mirrortool import clock

SEND_SECONDS = 1.0
"""A manager that is slower loses the message."""
STATUS_CHARACTERS_MAX = 400


class Notifier:
    """A way to the service manager. `ready` may be called by any thread, the others by the main thread."""

    def __init__(self, environment: Mapping[str, str], process_id: int) -> None:
        """Find out where messages are wanted.

        Args:
            environment: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID (sd_watchdog_enabled(3)).
            process_id: of this process; a watchdog of another one is not ours.
        """
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._status = ""
        self._alive_seconds = _watchdog_seconds(environment, process_id) / 2
        self._alive_at = clock.monotonic() - self._alive_seconds

    def ready(self, status: str) -> None:
        """The service has begun: whatever waits for it may begin, too."""
        self._status = status
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, status: str) -> None:
        """What it does now, for people; the same text again is not sent again."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={_one_line(status)}")

    def alive(self) -> None:
        """Answer the watchdog, where there is one, each time that half of its time is over."""
        now = clock.monotonic()
        if self._alive_seconds and now - self._alive_at >= self._alive_seconds:
            self._alive_at = now
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """A clean stop has begun."""
        self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)


def _address(text: str) -> bytes | None:
    """A path, or with @ a name in the abstract namespace; what else systemd may say one day is not spoken here."""
    if text.startswith("@"):
        return b"\0" + text[1:].encode("utf-8", "surrogateescape")
    return text.encode("utf-8", "surrogateescape") if text.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str], process_id: int) -> float:
    """The time that may pass between two answers; 0 without a watchdog of this process."""
    text, owner = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(process_id))
    return int(text) / 1e6 if text.isdecimal() and text.isascii() and owner == str(process_id) else 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:STATUS_CHARACTERS_MAX]
