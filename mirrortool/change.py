"""A change that a client asks of a volume: a run of bytes at any offset, or zeros."""

from __future__ import annotations

from typing import NamedTuple

from mirrortool.files import Buffer


class Change(NamedTuple):
    """New content of a run of bytes.

    Attributes:
        offset: bytes from the start of the volume.
        length: bytes, 1 or more.
        data: that many bytes; the callee may keep them, as they are never written again. None: the range reads as zeros
            afterwards.
        keep_allocated: for zeros only: the space stays allocated, because it is needed again soon; no hole is made.
    """

    offset: int
    length: int
    data: Buffer | None
    keep_allocated: bool = False
