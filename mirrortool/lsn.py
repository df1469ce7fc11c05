"""Log sequence numbers: a type of their own, so that no count, page or address is taken for one."""

from __future__ import annotations

from typing import NewType

Lsn = NewType("Lsn", int)
"""The log sequence number of an operation: 1, 2, 3, and so on."""
NO_LSN = Lsn(0)
"""Before the first operation; where an LSN or none is meant, none."""
LAST_LSN = Lsn((1 << 63) - 1)
"""No operation comes after it."""
