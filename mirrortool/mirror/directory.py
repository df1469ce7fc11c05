"""The directory of a mirror: what lies where, its locks and its guards.

mirror.json       what it mirrors, and where its volumes are
checkpoint.json   what it durably knows
sums/             page sums as of the checkpoint
volumes/          images of the volumes that no --volume names
receipts/         one for each verification
bad/              what verifications found wrong that is not put right
lock              exclusive for a writer, shared for a reader that needs it unchanged
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from mirrortool import files, jsonfile, lockholder
from mirrortool.address import PAGE_SIZE_MAX, is_page_size
from mirrortool.errors import (
    HostError,
    NotAMirrorError,
    OtherJournalError,
    PromotedError,
    UsageError,
)
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.journal.lineage import Epoch, check_continues, load_history
from mirrortool.journal.pathkind import naming, not_a_mirror
from mirrortool.jsonfile import MIRROR_FORMAT, Fields
from mirrortool.lockholder import Worker
from mirrortool.lsn import NO_LSN
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.keptbacking import KeptBacking, KeptBackings, SpannedPlace
from mirrortool.mirror.keptvolume import Holder, KeptVolume, holders_of
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import quoted_word

MAKE_ANEW = "remove the mirror's directory, and make it anew: mirrortool replay JOURNAL MIRROR --replace-slot"


@dataclass(frozen=True, slots=True)
class Promoted:
    """That the mirror's volumes are a primary's now, and of which journal.

    Attributes:
        epoch: the one that began with it.
        time_ns: when.
    """

    epoch: Epoch
    journal_path: str
    time_ns: int

    def to_json(self) -> dict[str, object]:
        return {**self.epoch.to_json(), "journal_path": self.journal_path, "time_ns": self.time_ns}

    @classmethod
    def from_json(cls, fields: Fields) -> Promoted:
        return cls(Epoch.from_json(fields), fields.text("journal_path"), fields.integer("time_ns"))


class Mirror:
    """A mirror's directory. Holds no open file.

    Attributes:
        history: the epochs of its journal, as far as it followed them.
        promoted: set when it became a primary, which is for ever.
        backings: on which some of its volumes lie; None if none does.
        slot: the name of its slot in the journal that it was replayed from last; None if it never had one.
    """

    def __init__(self, path: str) -> None:
        """Open what is there.

        Raises:
            NotAMirrorError: no mirror.json, or one of a newer format, or one that is not valid.
        """
        self.path = path
        self._load()

    def _load(self) -> None:
        fields = None
        if files.is_directory(self.path):
            with naming(self.path):
                fields = jsonfile.load(
                    self._json_path, NotAMirrorError, MAKE_ANEW, newer=NotAMirrorError, known=MIRROR_FORMAT
                )
        if fields is None:
            raise not_a_mirror(self.path)
        if not fields.integer("format"):
            raise fields.wrong("format")
        self.uuid = fields.hexadecimal("uuid", 16)
        self.journal_uuid = fields.hexadecimal("journal_uuid", 16)
        self.history = load_history(fields, self.journal_uuid)
        self.promoted = Promoted.from_json(fields.object("promoted")) if "promoted" in fields else None
        self.journal_path = fields.text("journal_path")
        self.slot = fields.text("slot") if "slot" in fields else None
        self.page_size = fields.integer("page_size", PAGE_SIZE_MAX)
        if not is_page_size(self.page_size):
            raise fields.wrong("page_size")
        self.kept = [KeptVolume.from_json(each) for each in fields.objects("volumes")]
        is_spanned = any(isinstance(kept.place, SpannedPlace) for kept in self.kept)
        self.backings = KeptBackings.from_json(fields) if is_spanned else None
        self.checkpoint = self._load_checkpoint()

    def _load_checkpoint(self) -> Checkpoint:
        path = self.checkpoint_path
        fields = jsonfile.load(path, NotAMirrorError, MAKE_ANEW)
        if fields is None:
            raise NotAMirrorError("the checkpoint is missing", where=path, remedy=MAKE_ANEW)
        checkpoint = Checkpoint.from_json(fields)
        if set(checkpoint.sizes) != {volume.name for volume in self.kept}:
            raise NotAMirrorError("the checkpoint is of other volumes", where=path, remedy=MAKE_ANEW)
        return checkpoint

    @property
    def _json_path(self) -> str:
        return files.join(self.path, "mirror.json")

    @property
    def volumes(self) -> VolumeSet:
        """The volumes with their sizes as of the checkpoint."""
        sizes = self.checkpoint.sizes
        try:
            return VolumeSet([Volume(kept.name, kept.start, sizes[kept.name]) for kept in self.kept], self.page_size)
        except UsageError as error:
            raise NotAMirrorError(error.what, where=self.path) from None

    @property
    def lock_path(self) -> str:
        return files.join(self.path, "lock")

    @property
    def checkpoint_path(self) -> str:
        return files.join(self.path, "checkpoint.json")

    @property
    def sums_path(self) -> str:
        return files.join(self.path, "sums")

    @property
    def receipts_path(self) -> str:
        return files.join(self.path, "receipts")

    def volume_path(self, kept: KeptVolume) -> str:
        """The file or device of a volume that has one for itself, from the root or from where the mirror was named."""
        path = kept.place.file_path(self.path)
        assert path is not None, "asked only of a volume in a file or device"
        return path

    @property
    def held(self) -> list[str]:
        """The names of the volumes whose bytes it has; of the others it keeps the sums (--only)."""
        return [kept.name for kept in self.kept if kept.is_held]

    @property
    def holds_all(self) -> bool:
        """Whether it has the bytes of all volumes."""
        return all(kept.is_held for kept in self.kept)

    def is_held(self, page: int) -> bool:
        """Whether a page of the address space is of a volume that it holds."""
        place = bisect.bisect_right(self.kept, page * self.page_size, key=lambda kept: kept.start)
        return self.kept[place - 1].is_held

    def holders(self) -> list[Holder]:
        """The files and devices that hold the volumes."""
        backings = self.backings.each if self.backings else ()
        return [
            *holders_of(self.kept, self.path),
            *(Holder(backing.name, f"backing {backing.short}", backing.path) for backing in backings),
        ]

    @property
    def read_through(self) -> str | None:
        """What answers reads of some of its volumes in place of a device, and cannot be told to forget; else None."""
        return next((found for kept in self.kept if (found := kept.place.read_through())), None)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace it durably. The caller has kept the order in checkpoint.py."""
        jsonfile.save(self.checkpoint_path, checkpoint.to_json())
        self.checkpoint = checkpoint

    def follow_to(self, journal: Journal) -> None:
        """Remember where the journal is, which may have been moved, and its epochs, so that none before is followed.

        Raises:
            HostError: a new epoch could not be noted. That the path could not be does not matter.
        """
        here = files.absolute(journal.path)
        if journal.history != self.history:
            self._change(**epoch_fields(journal), journal_path=here)
            self.history, self.journal_path = journal.history, here
        elif self.journal_path != here:
            with suppress(HostError):
                self._change(journal_path=here)
                self.journal_path = here

    def keep_slot(self, name: str) -> None:
        """Remember the name of its slot, so that the next replay uses that; a full file system does not matter."""
        if self.slot != name:
            with suppress(HostError):
                self._change(slot=name)
                self.slot = name

    def save_backings(self, backings: Iterable[KeptBacking]) -> None:
        """Note durably which backings there are, and where."""
        assert self.backings is not None
        now = replace(self.backings, each=tuple(backings))
        self._change(**now.to_json())
        self.backings = now

    def save_promoted(self, promoted: Promoted) -> None:
        """Note durably that the volumes are a primary's from now on."""
        self._change(promoted=promoted.to_json())
        self.promoted = promoted

    def _change(self, **values: object) -> None:
        fields = jsonfile.load(self._json_path, NotAMirrorError, known=MIRROR_FORMAT)
        assert fields is not None, "read when the mirror was opened"
        jsonfile.save(self._json_path, fields.changed(**values))

    def lock(self, *, exclusive: bool, doing: str = "", promoting: bool = False) -> File:
        """Lock the mirror until the returned file is closed, and read its small files again.

        Args:
            doing: of an exclusive lock, what it is for; see lockholder.Worker.
            promoting: even if it was promoted; for promote.
        Raises:
            LockedError: a replay or promote is running, or, for those, anything is.
            PromotedError: it is a primary now.
        """
        # A read-only file system can still be verified: nothing can write there.
        file = self._lock(exclusive, doing)
        try:
            self._load()
            if self.promoted and not promoting:
                raise PromotedError(
                    f"the mirror was promoted: its volumes are the primary's of epoch {self.promoted.epoch.number}",
                    where=self.path,
                    remedy=f"they are recorded in {self.promoted.journal_path}; make mirrors of that",
                )
        except BaseException:
            file.close()
            raise
        return file

    def _lock(self, exclusive: bool, doing: str) -> File:
        if exclusive:
            return lockholder.hold(self.lock_path, "the mirror", doing)
        file = files.open_file(self.lock_path, follow=False)
        try:
            file.lock(exclusive=False, what="the mirror")
        except BaseException:
            file.close()
            raise
        return file

    def worker(self) -> Worker | None:
        """The process that replays into it, or promotes it, now; None if none does.

        Raises:
            AccessError: this user may not ask.
        """
        return lockholder.find_worker(self.lock_path)

    def check_not_replaced(self, journal: Journal) -> None:
        """Of a promoted one: the journal has no later primary.

        Raises:
            PromotedError: another mirror was promoted since.
        """
        promoted, current = self.promoted, journal.history.current
        if promoted and journal.uuid == self.journal_uuid and current.number > promoted.epoch.number:
            raise PromotedError(
                f"it became the primary of epoch {promoted.epoch.number} at position {promoted.epoch.start}, but the "
                f"journal is of epoch {current.number} by now, from position {current.start} on",
                where=self.path,
                remedy=f"mirrortool status {quoted_word(journal.path)} names its primary's volumes; make a new mirror",
            )

    def check_is_of(self, journal: Journal) -> None:
        """The mirror is one of this journal, and may continue with it.

        Raises:
            OtherJournalError, ForkedJournalError: it is not, and what to do.
        """
        if journal.uuid != self.journal_uuid:
            raise OtherJournalError(
                "the mirror belongs to another journal", where=self.path, remedy=f"its journal is {self.journal_path}"
            )
        checkpoint = self.checkpoint
        check_continues(
            journal.history,
            self.history,
            checkpoint.position,
            reached_lsn=checkpoint.reached_lsn,
            where=journal.path,
        )

    def open_sums(self, *, write: bool) -> PageSums:
        """The page sums as of the checkpoint."""
        return PageSums(self.sums_path, self.volumes, self.checkpoint.state_sum, write=write)


def is_promoted(path: str) -> bool:
    """Whether there is a mirror that became a primary, so that its volumes are not a mirror's any more."""
    try:
        return Mirror(path).promoted is not None
    except (NotAMirrorError, HostError):
        return False


def is_primarys_volume(mirror: str, path: str) -> bool:
    """Whether a path is a volume of a mirror that became a primary, and so as free or taken as any other disk."""
    try:
        opened = Mirror(mirror)
    except (NotAMirrorError, HostError):
        return False
    places = (files.real(holder.path) for holder in opened.holders())
    return opened.promoted is not None and files.real(path) in places


def empty_checkpoint(journal: Journal) -> Checkpoint:
    """Of a new mirror: empty volumes of their first sizes, which is a state of the primary."""
    sizes = journal.volumes.sizes
    return Checkpoint(journal.start, journal.first_state_sum, 0, True, NO_LSN, NO_LSN, sizes)


def epoch_fields(journal: Journal) -> dict[str, object]:
    """What mirror.json has of the journal's epochs."""
    return {"lineage": journal.lineage.hex(), "epoch": journal.epoch, "history": journal.history.to_json()}
