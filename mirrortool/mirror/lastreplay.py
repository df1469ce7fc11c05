"""What the last replay of a mirror did: for people, to see how operations came to their tasks.

Nothing depends on it: it is written when a replay ends, and where it cannot be, there is none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mirrortool import files, jsonfile
from mirrortool.errors import NotAMirrorError
from mirrortool.lsn import Lsn

NAME = "last-replay.json"
_SINCE = {"milliseconds", "journal_bytes"}
"""A mirror of an older version lacks these."""


@dataclass(frozen=True, slots=True)
class LastReplay:
    """Counts of units, over all groups.

    Attributes:
        time_ns: when it ended.
        direct: taken from the main queue by the task that applied them.
        mini_queue: delegated to a task that was writing the same pages.
        counter_waits: applied after several tasks were waited for.
        given_back: put back on the main queue; each is counted again by the way that it then went.
        milliseconds: how long it took to go to its target; 0 if it did not reach one.
        journal_bytes: of the journal files, and the base, that it read for that.
    """

    start_lsn: Lsn
    applied_lsn: Lsn
    time_ns: int
    units: int
    direct: int
    mini_queue: int
    counter_waits: int
    given_back: int
    milliseconds: int = 0
    journal_bytes: int = 0


def save(directory: str, last: LastReplay) -> None:
    """Replace it."""
    jsonfile.save(files.join(directory, NAME), asdict(last))


def load(directory: str) -> LastReplay | None:
    """The last one, None if there was none, or none that could be kept."""
    fields = jsonfile.load(files.join(directory, NAME), NotAMirrorError)
    if fields is None:
        return None
    names = [name for name in LastReplay.__dataclass_fields__ if name in fields or name not in _SINCE]
    values: dict[str, Any] = {name: fields.integer(name) for name in names}
    return LastReplay(**values)
