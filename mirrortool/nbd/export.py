"""The interface of an export: what an NBD server needs of an object that it serves.

The server has checked every offset and length against `size` before an export sees them, and has refused changes to
what is read-only. Several connections, each a thread, call one export at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from mirrortool.change import Change


class Export(Protocol):
    """An export. A failure raises a MirrortoolError: NoSpaceError becomes ENOSPC, every other EIO."""

    @property
    def name(self) -> str:
        """What clients call it; at most 4,096 bytes of UTF-8."""

    @property
    def description(self) -> str:
        """A line for people, or nothing."""

    @property
    def size(self) -> int:
        """Bytes; fixed while it is served."""

    @property
    def read_only(self) -> bool:
        """Whether clients may only read."""

    @property
    def page_size(self) -> int:
        """Bytes that are best read and written at once: a power of two, preferred, not required."""

    @property
    def zeroes_fast(self) -> bool:
        """Whether zeros without data cost less than zeros written."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; what `change` returned for, of any connection, is seen."""

    def change(self, changes: Sequence[Change]) -> None:
        """Do all in order; returns when they are journaled and may be acknowledged. The export keeps the list."""

    def flush(self) -> None:
        """Returns when everything that `change` has returned for, of any connection, is durable."""

    def extents(self, offset: int, length: int) -> Iterable[tuple[int, bool]]:
        """Runs that cover the range in order: (bytes, whether it is a hole, which reads as zeros)."""

    def cache(self, offset: int, length: int) -> None:
        """The range will be read soon."""
