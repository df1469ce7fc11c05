"""The gate of a store's syncs: one at a time, and after one has failed none succeeds.

Of two at once only one would hear of an error. And after an error the storage may have dropped what it could not write,
and reports that only once: a later sync that succeeds would prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mirrortool.errors import HostError


class SyncGate:
    """Owned by one store; any thread may use it."""

    def __init__(self) -> None:
        self._syncing = threading.Lock()  # held for a sync; always the first lock
        # Protects _failure; held for one look or assignment, so that `fail` does not wait for a sync that hangs.
        self._failing = threading.Lock()
        self._failure: HostError | None = None

    def run(self, attempt: Callable[[], None]) -> None:
        """Call what syncs, unless one has failed.

        Raises:
            HostError: it failed, or an earlier one had.
        """
        with self._syncing:
            self.check()
            try:
                attempt()
            except HostError as error:
                self.fail(error)
                raise
            self.check()  # `fail` may have been called meanwhile

    def fail(self, error: HostError) -> None:
        """From now on no sync succeeds: what was written may be lost. The first reason stays."""
        with self._failing:
            if self._failure is None:  # a copy, as whoever catches the error may add to it
                self._failure = type(error)(error.what, where=error.where, remedy=error.remedy)

    def check(self) -> None:
        """
        Raises:
            HostError: a sync has failed, or `fail` was called.
        """
        with self._failing:
            failure = self._failure
        if failure:
            raise type(failure)(failure.what, where=failure.where, remedy=failure.remedy)
