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

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files, jsonfile, lockholder, pathowner
from mirrortool.address import PAGE_SIZE_MAX, is_page_size
from mirrortool.errors import (
    ChangedOutsideError,
    HostError,
    NotAMirrorError,
    OtherJournalError,
    PromotedError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.files import Facts, File, Identity
from mirrortool.journal.directory import Journal
from mirrortool.journal.lineage import Epoch, check_continues, load_history
from mirrortool.journal.pathkind import PathKind, in_the_way, kind_of, names_where_ours_is_made, naming, not_a_mirror
from mirrortool.jsonfile import Fields
from mirrortool.lockholder import Worker
from mirrortool.lsn import NO_LSN
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.targetvolume import Primaries, check_target, open_target, prepare_target, too_small
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import exact_bytes, quoted_word

FORMAT = 1
_MAKE_ANEW = "remove the mirror's directory, and make it anew: mirrortool replay JOURNAL MIRROR --replace-slot"


@dataclass(frozen=True, slots=True)
class MirrorVolume:
    """Where a volume is kept.

    Attributes:
        path: absolute, or relative to the mirror's directory.
        identity: of what the owner named by --volume; None for an image of our own.
    """

    name: str
    start: int
    path: str
    identity: Identity | None


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
                fields = jsonfile.load(self._json_path, NotAMirrorError, _MAKE_ANEW, newer=NotAMirrorError)
        if fields is None:
            raise not_a_mirror(self.path)
        if fields.integer("format") != FORMAT:
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
        self.kept = [_mirror_volume(each) for each in fields.objects("volumes")]
        self.checkpoint = self._load_checkpoint()

    def _load_checkpoint(self) -> Checkpoint:
        path = self.checkpoint_path
        fields = jsonfile.load(path, NotAMirrorError, _MAKE_ANEW)
        if fields is None:
            raise NotAMirrorError("the checkpoint is missing", where=path, remedy=_MAKE_ANEW)
        checkpoint = Checkpoint.from_json(fields)
        if set(checkpoint.sizes) != {volume.name for volume in self.kept}:
            raise NotAMirrorError("the checkpoint is of other volumes", where=path, remedy=_MAKE_ANEW)
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

    def volume_path(self, kept: MirrorVolume) -> str:
        """Where a volume is kept, from the root or from where the mirror was named."""
        return files.join(self.path, kept.path)

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
            self._change(**_epoch_fields(journal), journal_path=here)
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

    def save_promoted(self, promoted: Promoted) -> None:
        """Note durably that the volumes are a primary's from now on."""
        self._change(promoted=promoted.to_json())
        self.promoted = promoted

    def _change(self, **values: object) -> None:
        fields = jsonfile.load(self._json_path, NotAMirrorError)
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

    def open_store(self, *, write: bool) -> Store:
        """The volumes, locked and as the owner named them.

        Raises:
            LockedError, UnusableVolumeError, ChangedOutsideError: a guard refuses, and why.
        """
        opened: dict[str, File] = {}
        volumes = self.volumes
        try:
            for kept in self.kept:
                opened[kept.name] = self._open_volume(kept, volumes[kept.name], write)
            return FlatStore(volumes, opened, must_stay=write)
        except BaseException:
            for file in opened.values():
                file.close()
            raise

    def open_sums(self, *, write: bool) -> PageSums:
        """The page sums as of the checkpoint."""
        return PageSums(self.sums_path, self.volumes, self.checkpoint.state_sum, write=write)

    def _open_volume(self, kept: MirrorVolume, volume: Volume, write: bool) -> File:
        path = self.volume_path(kept)
        file = open_target(path, write=write)
        try:
            self._check_volume(kept, volume, file.facts(), path)
        except BaseException:
            file.close()
            raise
        return file

    def _check_volume(self, kept: MirrorVolume, volume: Volume, facts: Facts, path: str) -> None:
        if kept.identity and not is_same(kept.identity, facts.identity):
            raise ChangedOutsideError(
                "another file or device than the mirror was made on", where=path, remedy="put the right one back"
            )
        if facts.identity.is_device:
            if facts.size < volume.size:
                raise too_small(path, facts.size, volume)
        elif facts.size != volume.size and self.checkpoint.is_finished:
            raise ChangedOutsideError(
                f"has {exact_bytes(facts.size)}, the mirror left it with {exact_bytes(volume.size)}",
                where=path,
                remedy=_MAKE_ANEW,
            )


def create(
    path: str,
    journal: Journal,
    targets: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
    raw: bool = False,
    is_scratch: bool = False,
    group: int | None = None,
) -> Mirror:
    """Make an empty mirror of a journal (420, FIG. 4), all zeros at LSN 0.

    An interrupted call leaves no mirror.json and can be repeated.

    Args:
        targets: paths of volumes that are not to be images in the mirror's directory.
        overwrite: whether data in them that is not ours may be lost.
        raw: also where it is an image in a container format.
        is_scratch: a mirror for the occasion, which lies in the journal.
        group: the number of one whose members may read what is made; by default only the owner may.
    Raises:
        AccessError: something else is at `path`, or that lies inside a journal, copy or mirror.
        UsageError: `targets` names a volume that the journal does not have.
        UnusableVolumeError: a target cannot be one.
    """
    targets = dict(targets or {})
    for name in targets:
        if name not in journal.volumes:
            raise UsageError(f"the journal has no volume {name}", where=journal.path)
    _refuse_duplicates(targets)
    _refuse_inside(targets, path, "volumes")
    if not is_scratch:
        pathowner.check_free(path)
    _check_is_free(path)
    files.claim_directory(path, group)
    for name in ("sums", "volumes"):
        files.make_directory(files.join(path, name), exist_ok=True)
    with files.open_locked(files.join(path, "lock"), "the mirror"):
        _check_is_free(path)  # another call may have finished meanwhile
        for name in ("receipts", "bad"):  # of the mirror that was here; what was proved or found was about that
            files.remove_tree(files.join(path, name))
            files.make_directory(files.join(path, name))
        places = {volume.name: _place_of(path, volume, targets) for volume in journal.volumes}
        primaries = Primaries([] if is_scratch else journal.volume_paths().values())
        for volume in journal.volumes:
            may_clear = overwrite if volume.name in targets else None
            check_target(places[volume.name], volume, primaries=primaries, overwrite=may_clear, raw=raw)
        for volume in journal.volumes:
            prepare_target(places[volume.name], volume, overwrite=overwrite and volume.name in targets, group=group)
        kept = [_kept(volume, places[volume.name], targets) for volume in journal.volumes]
        PageSums(files.join(path, "sums"), journal.volumes, 0, write=True).close()
        _save_new(path, journal, kept)
    return Mirror(path)


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
    places = (files.real(opened.volume_path(kept)) for kept in opened.kept)
    return opened.promoted is not None and files.real(path) in places


def is_to_be_made(path: str) -> bool:
    """Whether no mirror is at `path` yet, and one could be made there.

    Raises:
        NotAMirrorError: neither: it is not a directory.
        AccessError: something else is in the directory.
    """
    kind = kind_of(path)
    if kind == PathKind.MIRROR:
        return False
    if kind != PathKind.MISSING and not files.is_directory(path):
        raise not_a_mirror(path)
    if kind != PathKind.MISSING:
        _check_is_free(path)
    return True


def empty_checkpoint(journal: Journal) -> Checkpoint:
    """Of a new mirror: empty volumes of their first sizes, which is a state of the primary."""
    sizes = journal.volumes.sizes
    return Checkpoint(journal.start, journal.first_state_sum, 0, True, NO_LSN, NO_LSN, sizes)


def is_same(recorded: Identity, found: Identity) -> bool:
    """Whether this is what was recorded. A file system's own number may be another after each boot."""
    return recorded.is_device == found.is_device and recorded.inode == found.inode


def _place_of(path: str, volume: Volume, targets: Mapping[str, str]) -> str:
    """Where a new mirror keeps a volume. What an interrupted call left at our own place is empty, and ours."""
    name = targets.get(volume.name)
    return files.join(path, _own_name(volume)) if name is None else files.absolute(name)


def _kept(volume: Volume, place: str, targets: Mapping[str, str]) -> MirrorVolume:
    if volume.name not in targets:
        return MirrorVolume(volume.name, volume.start, _own_name(volume), None)
    facts = files.find_facts(place)
    assert facts is not None
    return MirrorVolume(volume.name, volume.start, place, facts.identity)


def _own_name(volume: Volume) -> str:
    return files.join("volumes", f"{volume.name}.img")


def _refuse_duplicates(targets: Mapping[str, str]) -> None:
    """Before anything is changed: no two names lead to one file or device, whether it exists yet or not."""
    seen: dict[Identity | str, str] = {}
    for name, target in targets.items():
        facts = files.find_facts(target)
        place = facts.identity if facts else files.real(target)
        if seen.setdefault(place, name) != name:
            raise UnusableVolumeError(f"volumes {seen[place]} and {name} would share one target", where=target)


def _refuse_inside(targets: Mapping[str, str], mirror: str, but: str) -> None:
    """No target is among the files of a journal, copy or mirror, this one included but for one of its directories.

    A volume of a promoted mirror is the disk to which a primary that was left fails back.
    """
    here = files.real(mirror)
    inside, allowed = files.join(here, ""), files.join(here, but, "")
    for target in map(files.real, targets.values()):
        owner = pathowner.find_owner_of_bytes(target)
        if target.startswith(inside) and not target.startswith(allowed):
            raise UnusableVolumeError("lies in the mirror's directory", where=target, remedy="choose another target")
        if owner and owner.path != here and not is_primarys_volume(owner.path, target):
            what = f"lies inside the {owner.kind} {owner.path}"
            raise UnusableVolumeError(what, where=target, remedy="choose another target")


def _save_new(path: str, journal: Journal, kept: list[MirrorVolume]) -> None:
    jsonfile.save(files.join(path, "checkpoint.json"), empty_checkpoint(journal).to_json())
    values = {
        "format": FORMAT,
        "uuid": secrets.token_hex(16),
        "journal_uuid": journal.uuid.hex(),
        **_epoch_fields(journal),
        "journal_path": files.absolute(journal.path),
        "page_size": journal.page_size,
        "volumes": [_volume_to_json(volume) for volume in kept],
    }
    jsonfile.save(files.join(path, "mirror.json"), values)


def _epoch_fields(journal: Journal) -> dict[str, object]:
    return {"lineage": journal.lineage.hex(), "epoch": journal.epoch, "history": journal.history.to_json()}


def _volume_to_json(volume: MirrorVolume) -> dict[str, object]:
    values: dict[str, object] = {"name": volume.name, "base": volume.start, "path": volume.path}
    if volume.identity:
        values |= {
            "device": volume.identity.device,
            "inode": volume.identity.inode,
            "is_device": volume.identity.is_device,
        }
    return values


def _mirror_volume(fields: Fields) -> MirrorVolume:
    identity = None
    if "inode" in fields:
        identity = Identity(fields.integer("device"), fields.integer("inode"), fields.flag("is_device"))
    return MirrorVolume(fields.text("name"), fields.integer("base"), fields.text("path"), identity)


def _check_is_free(path: str) -> None:
    ours = {"sums", "volumes", "receipts", "bad", "lock", "checkpoint.json", "checkpoint.json.new", "mirror.json.new"}
    if names_where_ours_is_made(path) - ours:
        raise in_the_way(path)
