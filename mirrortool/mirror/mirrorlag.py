"""The one rule by which a mirror's lag behind a commit is calculated; replay and status use it."""

from __future__ import annotations

from mirrortool.lsn import Lsn


def behind(lsn: Lsn, time_ns: int, commit_lsn: Lsn, commit_time_ns: int, now_ns: int) -> tuple[int, float]:
    """Operations and seconds that a mirror at an LSN, of a time, is behind the newest commit; never negative.

    Up to date it is 0 seconds behind, however old the commit is. Else it is as far behind as its state is old: if it
    took over now, that much would be lost. A clock that was stepped back does not make it negative.
    """
    operations = max(0, commit_lsn - lsn)
    if not operations:
        return 0, 0.0
    since_ns = time_ns or commit_time_ns
    return operations, max(0, now_ns - since_ns) / 1e9
