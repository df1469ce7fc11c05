"""Tracks what an API object has open, closes it at the end, and raises one error when the object is used after that.

After the end its locks are released, so anything that it did would be done beside other processes.
"""

from __future__ import annotations

from contextlib import ExitStack

from mirrortool.errors import UsageError


class Opened:
    """Locks and files, as a stack that gives them back."""

    def __init__(self, stack: ExitStack, what: str, where: str) -> None:
        """Take over what is open.

        Args:
            what, where: the object and its path, for people.
        """
        self._stack, self._what, self._where = stack, what, where
        self._is_closed = False

    def close(self) -> None:
        """Give all of it back; calling it again does nothing."""
        self._is_closed = True
        self._stack.close()

    def require(self) -> None:
        """
        Raises:
            UsageError: it was closed.
        """
        if self._is_closed:
            raise closed(self._what, self._where)


def closed(what: str, where: str) -> UsageError:
    """The error of a use after the end."""
    return UsageError(f"this {what} is closed", where=where, remedy="open another")
