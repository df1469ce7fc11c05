"""The commands that can run until they are stopped: which options make them, and how systemd treats them.

This is the only list. It is read before all else is imported (startupsignals.py), so it imports next to nothing.
Not here: the text of a unit (unitfile.py), and what each command does with its options.
"""

from __future__ import annotations

from typing import NamedTuple


class ServiceRules(NamedTuple):
    """A command that can be a service.

    Attributes:
        options: one of them makes it run until it is stopped.
        is_added: whether a unit adds it, as it is a single flag.
        final_codes: exit codes after which a restart does not help; see mirrortool-unit(1).
        restart_seconds: between an end and the next start.
        has_unit: whether a systemd unit makes it start with the host. What shows one moment is not of use then.
    """

    options: tuple[str, ...]
    is_added: bool
    final_codes: tuple[int, ...]
    restart_seconds: int
    has_unit: bool = True


_FINAL = (2, 11, 12, 13, 14, 15, 21, 24)
_IO_ERROR, _PAST_POINT, _BUG = 31, 23, 70

SERVICES = {
    # Clients wait for the socket to come back. After a failed fdatasync, what is in the page cache proves nothing.
    "record": ServiceRules(("--nbd", "--every"), False, (*_FINAL, _IO_ERROR, _BUG), 3),
    "replay": ServiceRules(("--follow",), True, (*_FINAL, _PAST_POINT, _BUG), 10),
    "ship": ServiceRules(("--follow",), True, (*_FINAL, _IO_ERROR, _BUG), 10),
    "serve": ServiceRules(("--nbd",), False, (*_FINAL, _IO_ERROR, _BUG), 10, has_unit=False),
}
