"""The backings of a mirror that is there: finding each by its uuid, and opening them as one store.

Guards: what is at a path is a backing of this very mirror, with this uuid, and at least as large as it was made. To
write, all must be there. To read, one that is not, or is not what it was, is left out: what lies on the others can
still be read, and verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from mirrortool import files
from mirrortool.errors import (
    ChangedOutsideError,
    HostError,
    MirrortoolError,
    NewerMirrorError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.mirror import lastseen
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptbacking import BackTarget, KeptBacking
from mirrortool.mirror.keptvolume import KeptVolume
from mirrortool.mirror.targetvolume import open_target
from mirrortool.store.backing import Backing, read_header
from mirrortool.store.backingformat import BackingHeader
from mirrortool.store.backingset import BackingSet
from mirrortool.store.interface import Store
from mirrortool.store.spanned import SpannedStore
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import VolumeSet
from mirrortool.wording import exact_bytes, quoted_word


@dataclass(frozen=True, slots=True)
class FoundBacking:
    """A backing of a mirror, and where it is.

    Attributes:
        kept: with the path at which it was found.
        header: None if it was not.
        problem: why it cannot be used; None if it can.
    """

    kept: KeptBacking
    header: BackingHeader | None
    problem: MirrortoolError | None = None


def find_backings(mirror: Mirror) -> list[FoundBacking]:
    """Look for the backings of a mirror, if it has any, at all their paths: devices may have changed their names.

    Nothing is locked.
    """
    if mirror.backings is None:
        return []
    there = {kept.path: _look(kept.path) for kept in mirror.backings.each}
    at = {look.header.uuid: path for path, look in there.items() if look.header}
    return [_judge(mirror, replace(kept, path=at.get(kept.uuid, kept.path)), there) for kept in mirror.backings.each]


@dataclass(frozen=True, slots=True)
class _Look:
    """What is at a path: nothing, something, or a backing."""

    is_there: bool = False
    size: int = 0
    header: BackingHeader | None = None
    damage: MirrortoolError | None = None


def _look(path: str) -> _Look:
    facts = files.find_facts(path)
    if facts is None:
        return _Look()
    if facts.kind not in ("file", "block device"):
        return _Look(is_there=True)
    try:
        with files.open_file(path) as file:
            return _Look(True, file.size(), read_header(file))
    except (UnusableVolumeError, NewerMirrorError, HostError) as error:
        return _Look(is_there=True, damage=error)


def _judge(mirror: Mirror, kept: KeptBacking, there: dict[str, _Look]) -> FoundBacking:
    """Whether what was found is what it was."""
    look, path = there[kept.path], kept.path
    header = look.header
    its_journal = quoted_word(mirror.journal_path)
    elsewhere = f"if it is elsewhere: mirrortool replay {its_journal} {quoted_word(mirror.path)} --back PATH"
    problem: MirrortoolError | None = look.damage
    if not look.is_there:
        problem = UnusableVolumeError(
            f"backing {kept.short} is not there", where=path, remedy=f"put it back; {elsewhere}"
        )
    elif problem is None and (header is None or header.uuid != kept.uuid):
        what = "is not a backing" if header is None else f"is backing {header.uuid.hex()[:8]}"
        problem = ChangedOutsideError(
            f"{what}, and it was {kept.short} when the mirror was written last",
            where=path,
            remedy=f"put the right one back; {elsewhere}",
        )
    elif header and header.mirror != mirror.uuid:
        problem = ChangedOutsideError(
            f"backing {kept.short} belongs to another mirror by now", where=path, remedy="put the right one back"
        )
    elif header and mirror.backings and header.extent_bytes != mirror.backings.extent_bytes:
        problem = ChangedOutsideError(
            f"backing {kept.short} has extents of another size", where=path, remedy="put the right one back"
        )
    elif header and look.size < header.size:
        problem = ChangedOutsideError(
            f"backing {kept.short} shrank: it has {exact_bytes(look.size)}, and had {exact_bytes(header.size)} when it "
            "was made",
            where=path,
            remedy="give it its size back, with what was there",
        )
    return FoundBacking(kept, None if problem else header, problem)


def open_backings(mirror: Mirror, _kept: Sequence[KeptVolume], volumes: VolumeSet, write: bool) -> Store:
    """A store of the volumes of a mirror that lie on its backings; these are locked.

    Raises:
        LockedError, UnusableVolumeError, ChangedOutsideError: a guard refuses, and why; to read, if it is so of all.
    """
    found = find_backings(mirror)
    problems = [each.problem for each in found if each.problem]
    if problems and (write or len(problems) == len(found)):
        raise problems[0]
    with ExitStack() as opening:
        backings = open_set([each for each in found if not each.problem], opening, write=write)
        draining = [each.kept.uuid for each in found if each.kept.is_draining]
        store = SpannedStore(
            volumes, backings, owner=mirror.path, write=write, draining=draining, is_partial=bool(problems)
        )
        opening.pop_all()
    return store


def open_set(found: Iterable[FoundBacking], opening: ExitStack, *, write: bool) -> BackingSet:
    """Open backings that were found, and lock them; `opening` closes them, until it is told otherwise."""
    gate, opened = SyncGate(), list[Backing]()
    for each in found:
        assert each.header
        file = opening.enter_context(open_target(each.kept.path, write=write))
        if read_header(file) != each.header:
            raise ChangedOutsideError(
                "another file or device has taken its place just now", where=each.kept.path, remedy="try again"
            )
        opened.append(Backing(file, each.header, gate))
    return BackingSet(opened, gate)


def missing_backings(mirror: Mirror) -> list[MirrortoolError]:
    """Why each backing that cannot be read cannot be."""
    return [each.problem for each in find_backings(mirror) if each.problem]


def relocate(mirror: Mirror, targets: Sequence[BackTarget], extent_bytes: int | None) -> None:
    """Note durably where the backings are: at their paths, or at those that the owner names; with the lock held.

    Raises:
        UnusableVolumeError, UsageError: a target is not a backing of this mirror.
        ChangedOutsideError: another one is missing, or not what it was.
    """
    if mirror.backings is None:
        if targets or extent_bytes:
            raise UsageError("the mirror has no backings", where=mirror.path, remedy="--back is for a new one")
        return
    if extent_bytes not in (None, mirror.backings.extent_bytes):
        raise UsageError("the size of extents cannot be changed", where=mirror.path, remedy="make a new mirror")
    named = {_uuid_at(mirror, target): files.absolute(target.path) for target in targets}
    found = [each for each in find_backings(mirror) if each.kept.uuid not in named]
    if problem := next((each.problem for each in found if each.problem), None):
        raise problem
    paths = {**named, **{each.kept.uuid: each.kept.path for each in found}}
    now = [replace(kept, path=paths[kept.uuid]) for kept in mirror.backings.each]
    moved = [new.name for old, new in zip(mirror.backings.each, now, strict=True) if old.path != new.path]
    if moved:
        lastseen.forget_some(mirror, moved)
        mirror.save_backings(now)


def _uuid_at(mirror: Mirror, target: BackTarget) -> bytes:
    assert mirror.backings is not None
    look = _look(target.path)
    if look.damage:
        raise look.damage
    header = look.header
    if (
        header is None
        or header.mirror != mirror.uuid
        or header.uuid not in {kept.uuid for kept in mirror.backings.each}
    ):
        raise UnusableVolumeError(
            "is not a backing of this mirror",
            where=target.path,
            remedy=f"mirrortool backing add {quoted_word(mirror.path)} {quoted_word(target.path)} makes it one",
        )
    if target.size is not None and target.size != header.size:
        raise UsageError(
            f"the backing has {exact_bytes(header.size)}, which cannot be changed",
            where=target.path,
            remedy="name it without a size",
        )
    return header.uuid
