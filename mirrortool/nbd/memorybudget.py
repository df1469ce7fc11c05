"""The memory budget of all clients: a share for each, and a pool from which large requests borrow.

    share    memory of one client, until it ends: for what it receives and answers
    loan     memory of one large request, from the pool, until it is answered
    pool     what remains when all clients that may connect have their shares

Rule: no thread waits for memory. A request that gets no loan is done in pieces, in its client's share. So a client that
stalls delays no other, whatever it holds, and there is no deadlock.
Rule: a loan is at most half of what the pool has, as switches share their buffers (Choudhury and Hahne, "Dynamic queue
length thresholds", 1998): some large requests leave room for the smaller ones, of which there are more.
Rule: a loan ends with its share at the latest, so that no memory is lost with a client.

Not counted: what the export keeps of a change, which has a bound of its own; and the clients in the handshake, whose
number the server limits, with little memory each.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from mirrortool.errors import UsageError
from mirrortool.wording import counted

SHARE_BYTES = 2 << 20
"""256 KiB of inbox, as much again for the changes copied out of it, 1 MiB of outbox, and a piece of a large WRITE."""
MEMORY_BYTES_DEFAULT = 256 << 20
CLIENT_BYTES_DEFAULT = 2 * SHARE_BYTES


def default_bytes(clients_max: int) -> int:
    """What `clients_max` clients have together by default."""
    return max(MEMORY_BYTES_DEFAULT, clients_max * CLIENT_BYTES_DEFAULT)


def check_memory(bytes_max: int, clients_max: int) -> None:
    """Check that the memory is enough for the clients.

    Raises:
        UsageError: there is not a share for each.
    """
    least = clients_max * SHARE_BYTES
    if bytes_max < least:
        raise UsageError(
            f"{counted(clients_max, 'client needs', 'clients need')} {SHARE_BYTES >> 20}M of memory each, "
            f"{least >> 20}M together, and --max-memory is {bytes_max >> 20}M",
            remedy="raise it, or lower --max-connections",
        )


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """How much memory is in use at one moment.

    Attributes:
        bytes_used: of shares and loans.
        bytes_max: of all.
        refused_loans: large requests that were done in pieces instead.
    """

    bytes_used: int
    bytes_max: int
    refused_loans: int


class Budget:
    """Gives out shares and loans. Safe to use from many threads; no call blocks."""

    def __init__(self, bytes_max: int, clients_max: int) -> None:
        """Begin with all memory free.

        Raises:
            UsageError: there is not a share for each client.
        """
        check_memory(bytes_max, clients_max)
        # Protects what follows; held for a few statements, and nothing is locked under it.
        self._lock = threading.Lock()
        self._bytes_max = bytes_max
        self._shares_left = self._shares_max = clients_max
        self._pool_left = self._pool_max = bytes_max - clients_max * SHARE_BYTES
        self._refused_loans = 0

    def use(self) -> MemoryUse:
        """What is in use now."""
        with self._lock:
            shares = (self._shares_max - self._shares_left) * SHARE_BYTES
            used = shares + self._pool_max - self._pool_left
            return MemoryUse(used, self._bytes_max, self._refused_loans)

    def share(self) -> Share | None:
        """A share for one more client; None if there are as many as there may be."""
        with self._lock:
            if not self._shares_left:
                return None
            self._shares_left -= 1
        return Share(self)

    def _lend(self, length: int) -> bool:
        with self._lock:
            if 2 * length > self._pool_left:
                self._refused_loans += 1
                return False
            self._pool_left -= length
            return True

    def _return(self, length: int, shares: int = 0) -> None:
        with self._lock:
            self._pool_left += length
            self._shares_left += shares


class Share:
    """The share of one client, for its thread alone; `with` gives it back."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._borrowed = 0
        self._is_closed = False

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def borrow(self, length: int) -> bool:
        """Borrow bytes from the pool for one large request; False if the pool has too few."""
        assert not self._borrowed and not self._is_closed, "one request at a time"
        if not self._budget._lend(length):
            return False
        self._borrowed = length
        return True

    def give_back(self) -> None:
        """Return what was borrowed; does nothing if nothing was."""
        if self._borrowed:
            length, self._borrowed = self._borrowed, 0
            self._budget._return(length)

    def close(self) -> None:
        """The client is gone. A second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            length, self._borrowed = self._borrowed, 0
            self._budget._return(length, shares=1)
