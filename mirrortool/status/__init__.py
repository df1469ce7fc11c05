"""Status: what is to be known of a journal or mirror, from its small files and its newest frames.

Each question has one small module:

    snapshot       the values that a look gives
    watch          looks, again and again, and reads only what was appended since
    activity       which processes use a journal or mirror
    lags           how far mirrors and copies are behind
    missingfiles   whether a journal file is missing in the middle
    worldreadable  whether every local user can read it
    problems       what is wrong, and which of it is worst: the exit code

Not here: the content of volumes (verify.py).
"""

from mirrortool.status.activity import Work
from mirrortool.status.lags import lag, lags_of
from mirrortool.status.problems import problems_of, worst
from mirrortool.status.snapshot import Found, JournalStatus, MirrorStatus, SlotStatus, Unseen
from mirrortool.status.watch import Watch, journal_status, mirror_status, status_of
from mirrortool.status.worldreadable import world_readable_file

__all__ = [
    "Found",
    "JournalStatus",
    "MirrorStatus",
    "SlotStatus",
    "Unseen",
    "Watch",
    "Work",
    "journal_status",
    "lag",
    "lags_of",
    "mirror_status",
    "problems_of",
    "status_of",
    "world_readable_file",
    "worst",
]
