"""recorder.json: what the recorder of a journal knows to be durable, and each volume as it was left.

Not here: where the file lies and when it counts (directory.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mirrortool import hostinfo
from mirrortool.files import Facts, Identity
from mirrortool.hostinfo import NO_IDS, DiskIds
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A volume's file or device as the recorder last left it.

    Attributes:
        disk_ids: of a device, what identifies it whatever its number.
    """

    size: int
    identity: Identity
    modified_ns: int
    changed_ns: int
    disk_ids: DiskIds = NO_IDS

    @classmethod
    def of(cls, facts: Facts) -> VolumeRecord:
        disk_ids = hostinfo.disk_ids(facts.identity)
        return cls(facts.size, facts.identity, facts.modified_ns, facts.changed_ns, disk_ids)

    @classmethod
    def from_json(cls, fields: Fields) -> VolumeRecord:
        identity = Identity(fields.integer("device"), fields.integer("inode"), fields.flag("is_device"))
        disk_ids = DiskIds(
            fields.text("wwid") if "wwid" in fields else "",
            fields.text("partuuid") if "partuuid" in fields else "",
            fields.integer("diskseq") if "diskseq" in fields else 0,
        )
        return cls(
            fields.integer("size"), identity, fields.signed("modified_ns"), fields.signed("changed_ns"), disk_ids
        )

    def to_json(self) -> dict[str, object]:
        values: dict[str, object] = {
            "size": self.size,
            "device": self.identity.device,
            "inode": self.identity.inode,
            "is_device": self.identity.is_device,
            "modified_ns": self.modified_ns,
            "changed_ns": self.changed_ns,
        }
        if self.identity.is_device:
            values |= asdict(self.disk_ids)
        return values


@dataclass(frozen=True, slots=True)
class RecorderCheckpoint:
    """What is durable everywhere: the journal up to a position, and sums and volumes as of it.

    Attributes:
        boot_id: of the kernel that ran then; another one now means that the page cache was lost.
        volumes: by name, with sizes as of the position.
        incomplete: names of volumes that were not read to their end yet, so that the journal lacks some of what they
            have.
    """

    position: Position
    state_sum: int
    time_ns: int
    boot_id: str
    volumes: Mapping[str, VolumeRecord]
    incomplete: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, object]:
        return {
            "position": self.position.to_json(),
            "state_sum": f"{self.state_sum:016x}",
            "time_ns": self.time_ns,
            "boot_id": self.boot_id,
            "volumes": {name: record.to_json() for name, record in self.volumes.items()},
            "incomplete": sorted(self.incomplete),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> RecorderCheckpoint:
        volumes = {name: VolumeRecord.from_json(each) for name, each in fields.object("volumes").named_objects()}
        return cls(
            Position.from_json(fields.object("position")),
            int.from_bytes(fields.hexadecimal("state_sum", 8), "big"),
            fields.integer("time_ns"),
            fields.text("boot_id"),
            volumes,
            frozenset(fields.texts("incomplete")),
        )
