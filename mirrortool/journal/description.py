"""What a journal is, as its journal.json says, and as a sender tells its receiver: values that never change.

Whatever learns of a newer one holds that in its place; so a reader in another thread keeps the one that it has.
Not here: where the file lies, and who may read or replace it (directory.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from mirrortool import jsonfile
from mirrortool.address import PAGE_SIZE_MAX, is_page_size
from mirrortool.errors import NotAJournalError, UsageError
from mirrortool.journal import format as layout
from mirrortool.journal.lineage import LINEAGE_BYTES, History, load_history
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN
from mirrortool.volume import Volume, VolumeSet


@dataclass(frozen=True, slots=True)
class NextScan:
    """When the process that runs repeated scans is going to run the next one.

    Attributes:
        begins_ns: when the scan begins.
        due_ns: when its commit is late; that leaves it twice what the scan before took.
    """

    begins_ns: int
    due_ns: int

    def to_json(self) -> dict[str, object]:
        return {"begins_ns": self.begins_ns, "due_ns": self.due_ns}

    @classmethod
    def from_json(cls, fields: Fields) -> NextScan:
        return cls(fields.integer("begins_ns"), fields.integer("due_ns"))


@dataclass(frozen=True, slots=True)
class Description:
    """A journal at one moment.

    Attributes:
        history: the epochs; the last is the one that is recorded, or received.
        volumes: with the sizes that they had first.
        clean_end: where the frames end after a clean stop; None while frames are appended, or since a crash.
        next_scan: None unless repeated scans are run.
    """

    uuid: bytes
    history: History
    page_size: int
    volumes: VolumeSet
    clean_end: FrameEnd | None = None
    next_scan: NextScan | None = None

    @classmethod
    def begun(cls, volumes: VolumeSet) -> Description:
        """Of a new journal of these volumes."""
        uuid = secrets.token_bytes(16)
        return cls(uuid, History.begun(uuid, secrets.token_bytes(LINEAGE_BYTES)), volumes.page_size, volumes)

    @classmethod
    def from_json(cls, fields: Fields, where: str) -> Description:
        """Read what `to_json` or `identity` made.

        Args:
            where: what the message of an error names.
        Raises:
            NotAJournalError: of a newer format, or it is not valid.
        """
        if fields.integer("format") != layout.VERSION:
            raise jsonfile.later_format(NotAJournalError, where, fields.integer("format"), layout.VERSION)
        uuid = fields.hexadecimal("uuid", 16)
        history = load_history(fields, uuid)
        page_size = fields.integer("page_size", PAGE_SIZE_MAX)
        if not is_page_size(page_size):
            raise fields.wrong("page_size")
        placed = [
            Volume(each.text("name"), each.integer("base"), each.integer("size")) for each in fields.objects("volumes")
        ]
        try:
            volumes = VolumeSet(placed, page_size)
        except UsageError as error:
            raise NotAJournalError(error.what, where=where) from None
        clean_end = FrameEnd.from_json(fields.object("end")) if "end" in fields else None
        next_scan = NextScan.from_json(fields.object("next_scan")) if "next_scan" in fields else None
        return cls(uuid, history, page_size, volumes, clean_end, next_scan)

    def to_json(self) -> dict[str, object]:
        """As journal.json has it."""
        following = {"next_scan": self.next_scan.to_json()} if self.next_scan else {}
        return {**self.identity(), "end": self.clean_end.to_json() if self.clean_end else None, **following}

    def identity(self) -> dict[str, object]:
        """What the journal is: everything but where it ends."""
        return {
            "format": layout.VERSION,
            "uuid": self.uuid.hex(),
            "lineage": self.history.current.lineage.hex(),
            "epoch": self.history.current.number,
            "history": self.history.to_json(),
            "page_size": self.page_size,
            "volumes": [{"name": each.name, "base": each.start, "size": each.size} for each in self.volumes],
        }

    @property
    def start(self) -> Position:
        """The position before LSN 1."""
        return Position(NO_LSN, layout.first_chain(self.uuid))

    @property
    def first_state_sum(self) -> int:
        """The state sum before LSN 1: empty volumes of their first sizes."""
        return empty_state_sum(self.volumes)


def empty_state_sum(volumes: Sequence[Volume] | VolumeSet) -> int:
    """The state sum of volumes that read as zeros."""
    state_sum = 0
    for volume in volumes:
        state_sum ^= volume.term
    return state_sum
