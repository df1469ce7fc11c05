"""Events of a server: lines for the person who runs it, but not one for each of a thousand clients."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import NamedTuple

from mirrortool import clock

SECONDS_BETWEEN = 10.0
LINE_CHARACTERS_MAX = 400


class _LastTold(NamedTuple):
    """When a line of a kind was last told, and how many were not told since."""

    at: float
    untold: int


class Events:
    """Passes lines on: of each kind one in ten seconds, which says how many more there were.

    `on_event` is called by any thread of the server, one at a time.
    """

    def __init__(self, on_event: Callable[[str], None]) -> None:
        self._on_event = on_event
        # Held while `on_event` runs, so that lines do not mix. Nothing else is locked under it.
        self._lock = threading.Lock()
        # By kind, of which the code has a few.
        self._told: dict[str, _LastTold] = {}

    def tell(self, kind: str, text: str) -> None:
        """Tell a line, unless one of its kind was told just now. Never raises."""
        with self._lock:
            now = clock.monotonic()
            last = self._told.get(kind, _LastTold(now - SECONDS_BETWEEN, 0))
            if now - last.at < SECONDS_BETWEEN:
                self._told[kind] = _LastTold(last.at, last.untold + 1)
                return
            self._told[kind] = _LastTold(now, 0)
            more = f" ({last.untold} more like this since the last such line)" if last.untold else ""
            with contextlib.suppress(Exception):  # a log that cannot be written must not stop the service
                self._on_event(one_line(text) + more)


def one_line(text: str) -> str:
    """Text that a client may have written, as one line without control characters for a terminal."""
    cut = text if len(text) <= LINE_CHARACTERS_MAX else f"{text[:LINE_CHARACTERS_MAX]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in cut)
