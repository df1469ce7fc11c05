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
received.json   of such a copy: up to where it is durable here; see durablemark.py
control.sock    the door of a running recorder
slots/          the readers of the journal, and up to where each has read
index/          index files, of no content of their own; see points/indexfile.py
torn/           torn tails, moved there by the recorder; never read
forked/         frames that a promotion dropped; never read
promoting.json  a promotion under way; see journal/unfinished.py
lock            held by the process that appends
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import replace

from mirrortool import clock, files, hostinfo, jsonfile, lockholder
from mirrortool.errors import HostError, NewerJournalError, NotAJournalError, UsageError
from mirrortool.files import Facts, File
from mirrortool.journal import format as layout
from mirrortool.journal.description import Description
from mirrortool.journal.lineage import LINEAGE_BYTES, History
from mirrortool.journal.pathkind import in_the_way, names_where_ours_is_made, naming, not_a_journal, require_directory
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint, VolumeRecord
from mirrortool.journal.unfinished import Unfinished, check_finished
from mirrortool.lockholder import Worker
from mirrortool.lsn import Lsn
from mirrortool.volume import VolumeSet
from mirrortool.wording import quoted_word


def is_described(path: str) -> bool:
    """Whether journal.json is there and says of which format the journal is, be that known here or not."""
    try:
        fields = jsonfile.load(files.join(path, "journal.json"), NotAJournalError)
        return fields is not None and fields.integer("format") >= 0
    except NewerJournalError:
        return True
    except NotAJournalError:
        return False


def _remedy_for(path: str) -> str:
    """What mends a journal.json that is not valid."""
    if any(files.exists(files.join(path, name)) for name in ("local.json", "recorder.json")):
        return "put that of a copy of the journal, or of a backup, in its place"
    return "the next mirrortool ship to this copy writes it anew"


class Journal:
    """A journal's directory: where things lie, the small files, the lock. Holds no open file.

    Attributes:
        description: what journal.json said when it was read, or written here; replaced, never changed.
        next_scan: None unless repeated scans are run; saved with the next `save_clean_end`.
    """

    def __init__(
        self, path: str, *, finishing: Unfinished | None = None, description: Description | None = None
    ) -> None:
        """Open the journal at `path`.

        Args:
            finishing: even if this was interrupted; to finish it.
            description: what journal.json is going to say, whatever is there; nothing is read then.
        Raises:
            NotAJournalError: no journal.json, or one of a newer format, or one that is not valid.
            UnfinishedPromotionError: a promotion was interrupted.
            UnfinishedArrivalError: a base is taking the place of older files.
        """
        self.path = path
        self._seen: Facts | None = None
        self.description = description or self._read(finishing)
        self.next_scan = self.description.next_scan

    def _read(self, finishing: Unfinished | None) -> Description:
        require_directory(self.path)
        with naming(self.path):
            check_finished(self.path, finishing)
            self._seen = files.find_facts(self._json_path)
            remedy = _remedy_for(self.path)
            fields = jsonfile.load(self._json_path, NotAJournalError, remedy, newer=NotAJournalError)
        if fields is None:
            raise not_a_journal(self.path)
        return Description.from_json(fields, self.path)

    @property
    def uuid(self) -> bytes:
        return self.description.uuid

    @property
    def history(self) -> History:
        return self.description.history

    @property
    def page_size(self) -> int:
        return self.description.page_size

    @property
    def volumes(self) -> VolumeSet:
        return self.description.volumes

    @property
    def clean_end(self) -> FrameEnd | None:
        return self.description.clean_end

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
        return self.description.start

    @property
    def first_state_sum(self) -> int:
        """The state sum before LSN 1: empty volumes of their first sizes."""
        return self.description.first_state_sum

    @property
    def _json_path(self) -> str:
        return files.join(self.path, "journal.json")

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

    def index_path(self, name: str) -> str:
        """The index of the journal file or base of this name, which can be made again; see points/indexfile.py."""
        return files.join(self.indexes_path, f"{name}.index")

    @property
    def indexes_path(self) -> str:
        return files.join(self.path, "index")

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
        return self._seen != files.find_facts(self._json_path)

    def adopt(self, newer: Journal) -> None:
        """Continue with what another look at the same journal found."""
        self.description, self._seen = newer.description, newer._seen
        self.next_scan = newer.next_scan

    def save(self, description: Description) -> None:
        """Replace journal.json; only then it counts here, so that a call that failed can be repeated."""
        jsonfile.save(self._json_path, description.to_json())
        self.description = description

    def save_history(self, history: History, end: FrameEnd | None = None) -> None:
        """Begin an epoch here, or follow the one that a sender began. The frames up to `end` are durable."""
        self.save(replace(self.description, history=history, clean_end=end, next_scan=self.next_scan))

    def save_clean_end(self, end: FrameEnd | None) -> None:
        """Note a clean stop, or that one is over because frames will be appended; with it, `next_scan`."""
        following = replace(self.description, clean_end=end, next_scan=self.next_scan)
        if following != self.description:
            self.save(following)

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

    def current_volumes(self) -> VolumeSet:
        """The volumes with the sizes that the recorder last saw, where it is this host's; else with their first ones.

        Raises:
            NotAJournalError: these sizes are not valid.
        """
        checkpoint = self.known_checkpoint()
        if checkpoint is None or not all(volume.name in checkpoint.volumes for volume in self.volumes):
            return self.volumes
        try:
            return self.volumes.with_sizes(
                {volume.name: checkpoint.volumes[volume.name].size for volume in self.volumes}
            )
        except UsageError as error:
            raise NotAJournalError(f"recorder.json: {error.what}", where=self.path) from None

    def save_recorder_checkpoint(self, checkpoint: RecorderCheckpoint, lineage: bytes | None = None) -> None:
        """Replace it. The caller has made durable what it says.

        Args:
            lineage: of the epoch that the recorder is the primary of; by default the newest.
        """
        values = {**checkpoint.to_json(), "lineage": (lineage or self.lineage).hex()}
        jsonfile.save(files.join(self.path, "recorder.json"), values)

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
    journal = Journal(path, description=Description.begun(volumes))
    journal.save_volume_paths(paths)
    journal.save_recorder_checkpoint(
        RecorderCheckpoint(
            journal.start, journal.first_state_sum, clock.now_ns(), hostinfo.boot_id(), records, frozenset(records)
        )
    )
    journal.save(journal.description)
    return journal


def share_slots(path: str) -> None:
    """Let the group that may read a journal have slots in it, too: its members are trusted with these, and the lock."""
    files.make_directory(files.join(path, "slots"), exist_ok=True, mode=0o770)


def _check_is_free(path: str) -> None:
    names = names_where_ours_is_made(path)
    begun = {f"{name}.json{suffix}" for name in ("local", "recorder", "journal") for suffix in ("", ".new")}
    if names - {"files", "sums", "torn", "bases", "slots", "lock", *begun} or "journal.json" in names:
        raise in_the_way(path)
