"""The file of `--metrics-file`, for node_exporter's textfile collector.

Rule: replaced whole, so that a reader never sees half of it; at most every WRITE_SECONDS, and written anew also when
nothing has changed, so that its time tells that the command runs. It is not made durable.
Rule: that it cannot be written is told once, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mirrortool import clock, files
from mirrortool.errors import HostError
from mirrortool.metrics import Sample, exposition

WRITE_SECONDS = 5.0
MODE = 0o644


class MetricsFile:
    """The file, kept up to date by one thread that calls `tick` often and `write` at the end."""

    def __init__(self, path: str, collect: Callable[[], Iterable[Sample]], on_problem: Callable[[str], None]) -> None:
        """Write nothing yet.

        Args:
            collect: what to write, as of now.
            on_problem: told once, in a line, why the file is not written.
        """
        self._path = path
        self._collect = collect
        self._on_problem = on_problem
        self._written_at: float | None = None
        self._is_told = False

    def tick(self) -> None:
        """Write the file if it is time to."""
        if self._written_at is None or clock.monotonic() - self._written_at >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        self._written_at = clock.monotonic()
        try:
            files.replace_unsynced(self._path, exposition(self._collect()).encode(), MODE)
        except HostError as error:
            if not self._is_told:
                self._is_told = True
                self._on_problem(f"metrics are not written: {error}")
