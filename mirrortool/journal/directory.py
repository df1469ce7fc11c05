"""The directory of a journal: what lies where, and the small files beside the frames.

journal.json    what the journal is; `end` after a clean stop
local.json      where this host has the volumes; never shipped
recorder.json   the recorder's checkpoint
files/          journal files, named by their first LSN
sums/           the recorder's page sums, a sparse file a volume
detached.json   which segments the journal lacks, as it had no room
detached.log    what came to that and went since
seen.json       the volumes' times after the newest write-back, not made durable
reserve         allocated, so that there is room for that
copy.json       of a copy that is received: its own id
control.sock    the door of a running recorder
slots/          the readers of the journal, and up to where each has read
torn/           torn tails, moved there by the recorder; never read
forked/         frames that a promotion dropped; never read
promoting.json  a promotion under way; see journal/unfinished.py
lock            held by the process that appends
"""

from __future__ import annotations

import bisect
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mirrortool import clock, files, hostinfo, jsonfile, lockholder
from mirrortool.address import PAGE_SIZE_MAX, is_page_size
from mirrortool.errors import HostError, NotAJournalError, UsageError
from mirrortool.files import Facts, File, Identity
from mirrortool.hostinfo import NO_IDS, DiskIds
from mirrortool.journal import format as layout
from mirrortool.journal.lineage import LINEAGE_BYTES, History, load_history
from mirrortool.journal.pathkind import in_the_way, names_where_ours_is_made, naming, not_a_journal, require_directory
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.unfinished import check_no_promotion, check_no_switch
from mirrortool.jsonfile import Fields
from mirrortool.lockholder import Worker
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import quoted_word


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


def is_described(path: str) -> bool:
    """Whether journal.json is there and says of which format the journal is, be that known here or not."""
    try:
        fields = jsonfile.load(files.join(path, "journal.json"), NotAJournalError)
        return fields is not None and fields.integer("format") >= 0
    except NotAJournalError:
        return False


def _remedy_for(path: str) -> str:
    """What mends a journal.json that is not valid."""
    if any(files.exists(files.join(path, name)) for name in ("local.json", "recorder.json")):
        return "put that of a copy of the journal, or of a backup, in its place"
    return "the next mirrortool ship to this copy writes it anew"


class Journal:
    """A journal's directory. Holds no open file; the process that appends holds `lock`.

    Attributes:
        history: the epochs; the last is the one that is recorded, or received.
        clean_end: where the frames end after a clean stop; None while frames are appended, or since a crash.
        next_scan: None unless repeated scans are run; saved with the next `save_clean_end`.
    """

    def __init__(self, path: str, *, promoting: bool = False, switching: bool = False) -> None:
        """Open what is there.

        Args:
            promoting: even if a promotion was interrupted; for promote.
            switching: even if a base has only begun to take the place of older files; to finish that.
        Raises:
            NotAJournalError: no journal.json, or one of a newer format, or one that is not valid.
            UnfinishedPromotionError: a promotion was interrupted.
            UnfinishedArrivalError: a base is taking the place of older files.
        """
        self.path = path
        require_directory(path)
        with naming(path):
            if not promoting:
                check_no_promotion(path)
            if not switching:
                check_no_switch(path)
            self._seen: Facts | None = files.find_facts(files.join(path, "journal.json"))
            fields = jsonfile.load(files.join(path, "journal.json"), NotAJournalError, _remedy_for(path))
        if fields is None:
            raise not_a_journal(path)
        self._load(fields)

    @classmethod
    def described(cls, path: str, fields: Fields) -> Journal:
        """The journal at `path` as `description` tells of it, whatever is there.

        Raises:
            NotAJournalError: of a newer format, or it is not valid.
        """
        journal = cls.__new__(cls)
        journal.path, journal._seen = path, None
        journal._load(fields)
        return journal

    def _load(self, fields: Fields) -> None:
        if fields.integer("format") != layout.VERSION:
            raise NotAJournalError(
                f"journal format {fields.integer('format')} is not known here",
                where=self.path,
                remedy="upgrade mirrortool",
            )
        self.uuid = fields.hexadecimal("uuid", 16)
        self.history = load_history(fields, self.uuid)
        self.page_size = fields.integer("page_size", PAGE_SIZE_MAX)
        if not is_page_size(self.page_size):
            raise fields.wrong("page_size")
        placed = [
            Volume(each.text("name"), each.integer("base"), each.integer("size")) for each in fields.objects("volumes")
        ]
        try:
            self.volumes = VolumeSet(placed, self.page_size)
        except UsageError as error:
            raise NotAJournalError(error.what, where=self.path) from None
        self.clean_end = FrameEnd.from_json(fields.object("end")) if "end" in fields else None
        self.next_scan = NextScan.from_json(fields.object("next_scan")) if "next_scan" in fields else None
        self._saved_next_scan = self.next_scan

    @property
    def lineage(self) -> bytes:
        """Of the epoch that is recorded."""
        return self.history.current.lineage

    @property
    def epoch(self) -> int:
        """The one that is recorded."""
        return self.history.current.number

    @property
    def start(self) -> Position:
        """The position before LSN 1."""
        return Position(NO_LSN, layout.first_chain(self.uuid))

    @property
    def first_state_sum(self) -> int:
        """The state sum before LSN 1: empty volumes of their first sizes."""
        return empty_state_sum(self.volumes)

    @property
    def sums_path(self) -> str:
        return files.join(self.path, "sums")

    @property
    def forked_path(self) -> str:
        """What promotions dropped; see promote.py."""
        return files.join(self.path, "forked")

    @property
    def torn_path(self) -> str:
        return files.join(self.path, "torn")

    @property
    def seen_path(self) -> str:
        """The volumes' times as the newest write-back left them; see record/heldvolumes.py."""
        return files.join(self.path, "seen.json")

    @property
    def detached_path(self) -> str:
        """What the journal lacks while it has no room, if something is there; see record/detach.py."""
        return files.join(self.path, "detached.json")

    @property
    def detached_log_path(self) -> str:
        """What came to that and went since; it says nothing alone."""
        return files.join(self.path, "detached.log")

    @property
    def lock_path(self) -> str:
        return files.join(self.path, "lock")

    @property
    def files_path(self) -> str:
        return files.join(self.path, "files")

    def file_path(self, first_lsn: Lsn) -> str:
        """The journal file that begins with this LSN."""
        return files.join(self.files_path, layout.file_name(first_lsn))

    def file_starts(self) -> list[Lsn]:
        """First LSNs of the journal files that are there, ascending; files with other names are ignored."""
        parsed = map(layout.parse_file_name, files.list_directory(self.files_path))
        return sorted(lsn for lsn in parsed if lsn is not None)

    def file_holding(self, lsn: Lsn) -> Lsn | None:
        """The first LSN of the file in which the frame with this LSN would be."""
        starts = self.file_starts()
        index = bisect.bisect_right(starts, lsn) - 1
        return starts[index] if index >= 0 else None

    def has_news(self) -> bool:
        """Whether journal.json is another file by now than when it was read, or written here."""
        return self._seen != files.find_facts(files.join(self.path, "journal.json"))

    def adopt(self, newer: Journal) -> None:
        """Continue with the epochs and the clean end that another look at the same journal found."""
        self.history, self.clean_end, self._seen = newer.history, newer.clean_end, newer._seen
        self.next_scan = self._saved_next_scan = newer.next_scan

    def save_history(self, history: History, end: FrameEnd | None = None) -> None:
        """Begin an epoch here, or follow the one that a sender began. The frames up to `end` are durable."""
        self._save(history, end)

    def volume_paths(self) -> dict[str, str]:
        """Where this host has the volumes; empty on a host that has only the journal.

        Raises:
            NotAJournalError: the file is not valid.
        """
        remedy = f"mirrortool volume set {quoted_word(self.path)} NAME=PATH, with every volume, writes it anew"
        fields = jsonfile.load(files.join(self.path, "local.json"), NotAJournalError, remedy)
        if fields is None:
            return {}
        return {name: each.text("path") for name, each in fields.object("volumes").named_objects()}

    def save_volume_paths(self, paths: Mapping[str, str]) -> None:
        """Say where this host has the volumes."""
        values = {"volumes": {name: {"path": where} for name, where in paths.items()}}
        jsonfile.save(files.join(self.path, "local.json"), values)

    def recorder_checkpoint(self) -> RecorderCheckpoint | None:
        """The recorder's checkpoint; None on a host that has only the journal.

        That is so too where the primary of an epoch before was: nothing may continue with what is in its volumes.

        Raises:
            NotAJournalError: it is not valid.
        """
        command = f"mirrortool record --scan {quoted_word(self.path)}"
        remedy = f"{command} makes it anew, of the journal and the volumes as they are"
        fields = jsonfile.load(files.join(self.path, "recorder.json"), NotAJournalError, remedy)
        if fields is None or ("lineage" in fields and fields.hexadecimal("lineage", LINEAGE_BYTES) != self.lineage):
            return None
        return RecorderCheckpoint.from_json(fields)

    def known_checkpoint(self) -> RecorderCheckpoint | None:
        """The same for a reader: also None if it is not valid, as if this host had only the journal."""
        try:
            return self.recorder_checkpoint()
        except NotAJournalError:
            return None

    def save_recorder_checkpoint(self, checkpoint: RecorderCheckpoint, lineage: bytes | None = None) -> None:
        """Replace it. The caller has made durable what it says.

        Args:
            lineage: of the epoch that the recorder is the primary of; by default the newest.
        """
        values = {**checkpoint.to_json(), "lineage": (lineage or self.lineage).hex()}
        jsonfile.save(files.join(self.path, "recorder.json"), values)

    def save_clean_end(self, end: FrameEnd | None) -> None:
        """Note a clean stop, or that one is over because frames will be appended; with it, `next_scan`."""
        if (self.clean_end, self._saved_next_scan) != (end, self.next_scan):
            self._save(self.history, end)

    def lock(self, doing: str = "record") -> File:
        """Lock the journal for appending, until the returned file is closed.

        Args:
            doing: what for; see lockholder.Worker.
        Raises:
            LockedError: another recorder has it.
        """
        return lockholder.hold(self.lock_path, "the journal", doing)

    def worker(self) -> Worker | None:
        """The process that appends to the journal now; None if none does.

        Raises:
            AccessError: this user may not ask.
        """
        return lockholder.find_worker(self.lock_path)

    def is_in_use(self) -> bool:
        """Whether a process appends to the journal now, as far as this host can tell."""
        try:
            return self.worker() is not None
        except HostError:
            return False

    def description(self) -> dict[str, object]:
        """What the journal is, as journal.json has it: everything but where it ends."""
        return self._described(self.history)

    def _described(self, history: History) -> dict[str, object]:
        return {
            "format": layout.VERSION,
            "uuid": self.uuid.hex(),
            "lineage": history.current.lineage.hex(),
            "epoch": history.current.number,
            "history": history.to_json(),
            "page_size": self.page_size,
            "volumes": [{"name": each.name, "base": each.start, "size": each.size} for each in self.volumes],
        }

    def _save(self, history: History, end: FrameEnd | None) -> None:
        """Replace journal.json; only then it counts here, so that a call that failed can be repeated."""
        values = {**self._described(history), "end": end.to_json() if end else None}
        following = {"next_scan": self.next_scan.to_json()} if self.next_scan else {}
        jsonfile.save(files.join(self.path, "journal.json"), {**values, **following})
        self.history, self.clean_end, self._saved_next_scan = history, end, self.next_scan


def create(
    path: str,
    volumes: VolumeSet,
    paths: Mapping[str, str],
    records: Mapping[str, VolumeRecord],
    group: int | None = None,
) -> Journal:
    """Make a journal of these volumes, which count as all zeros until they are recorded.

    An interrupted call leaves no journal.json and can be repeated.

    Args:
        group: the number of one whose members may read it; by default only the owner may.
    Raises:
        AccessError: something else is at `path`.
        LockedError: another call makes one there.
    """
    _check_is_free(path)
    files.claim_directory(path, group)
    with files.open_locked(files.join(path, "lock"), "the journal"):
        _check_is_free(path)  # another call may have finished meanwhile
        if group is not None:
            share_slots(path)
        return _fill(path, volumes, paths, records)


def _fill(path: str, volumes: VolumeSet, paths: Mapping[str, str], records: Mapping[str, VolumeRecord]) -> Journal:
    for name in ("files", "sums", "torn", "bases"):  # the last may be wanted when no block is free any more
        files.make_directory(files.join(path, name), exist_ok=True)
    journal = Journal.__new__(Journal)
    journal.path, journal._seen = path, None
    journal.save_volume_paths(paths)
    journal.uuid = secrets.token_bytes(16)
    journal.history = History.begun(journal.uuid, secrets.token_bytes(LINEAGE_BYTES))
    journal.page_size, journal.volumes = volumes.page_size, volumes
    journal.clean_end = journal.next_scan = None
    journal.save_recorder_checkpoint(
        RecorderCheckpoint(
            journal.start, empty_state_sum(volumes), clock.now_ns(), hostinfo.boot_id(), records, frozenset(records)
        )
    )
    journal._save(journal.history, None)
    return journal


def empty_state_sum(volumes: Sequence[Volume] | VolumeSet) -> int:
    """The state sum of volumes that read as zeros."""
    state_sum = 0
    for volume in volumes:
        state_sum ^= volume.term
    return state_sum


def share_slots(path: str) -> None:
    """Let the group that may read a journal have slots in it, too: its members are trusted with these, and the lock."""
    files.make_directory(files.join(path, "slots"), exist_ok=True, mode=0o770)


def _check_is_free(path: str) -> None:
    names = names_where_ours_is_made(path)
    begun = {f"{name}.json{suffix}" for name in ("local", "recorder", "journal") for suffix in ("", ".new")}
    if names - {"files", "sums", "torn", "bases", "slots", "lock", *begun} or "journal.json" in names:
        raise in_the_way(path)
