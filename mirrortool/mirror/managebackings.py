"""Lists, adds, drains and removes the backings of a mirror.

Each change is made with the mirror's lock held exclusively, so that no replay runs; and in an order that a crash at any
moment leaves a mirror that is whole, and the same call can be made again:

    add      the backing is made; mirror.json names it
    drain    mirror.json says that it gets no more extents; these are moved (store/draining.py)
    remove   it is empty; mirror.json names it no more; its header and its label go
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace

from mirrortool import files
from mirrortool.errors import HostError, JournalError, MirrortoolError, UnusableVolumeError, UsageError
from mirrortool.journal.directory import Journal
from mirrortool.lifecycle import Opened
from mirrortool.mirror import lastseen, volumelabels
from mirrortool.mirror.backingvolumes import FoundBacking, find_backings, open_backings, relocate
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.filevolumes import refuse_inside
from mirrortool.mirror.keptbacking import BackTarget, KeptBacking, KeptBackings
from mirrortool.mirror.newbacking import NewBacking
from mirrortool.mirror.targetvolume import Primaries, open_target
from mirrortool.store.backing import Backing, read_header, unmake_backing
from mirrortool.store.backingformat import BACKINGS_MAX, NOWHERE
from mirrortool.store.draining import Draining
from mirrortool.store.spanned import SpannedStore
from mirrortool.wording import counted, quoted_word

_SHORT = 4
"""Digits of a uuid that name a backing, at least."""


@dataclass(frozen=True, slots=True)
class BackingUse:
    """A backing and what it has room for.

    Attributes:
        used, free: extents that lie on it, and that would find room; None where it could not be read.
    """

    found: FoundBacking
    used: int | None = None
    free: int | None = None

    @property
    def state(self) -> str:
        """As a word."""
        if self.found.problem:
            return "missing" if isinstance(self.found.problem, UnusableVolumeError) else "changed"
        if self.found.kept.is_draining:
            return "draining" if self.used else "drained"
        return "in use"


def list_backings(mirror: Mirror) -> list[BackingUse]:
    """The backings of a mirror, as their tables are now; nothing is locked.

    Raises:
        UsageError: it has none.
    """
    _backings_of(mirror)
    return [_use_of(found) for found in find_backings(mirror)]


def add_backing(
    mirror: Mirror, target: BackTarget, *, overwrite: bool = False, raw: bool = False, group: int | None = None
) -> BackingUse:
    """Make one more backing, empty.

    Raises:
        UnusableVolumeError, UsageError: it cannot be one.
        LockedError: a replay is running.
    """
    with _changing(mirror) as backings:
        if len(backings.each) == BACKINGS_MAX:
            raise UsageError(f"a mirror has at most {BACKINGS_MAX} backings", where=mirror.path)
        _refuse_own(backings, target)
        refuse_inside([target.path], mirror.path, "volumes")
        volumelabels.check_targets({"": target.path})
        new = NewBacking(target, mirror.uuid, backings.extent_bytes, overwrite=overwrite, raw=raw)
        new.check(Primaries(_primary_paths(mirror)))
        mirror.save_backings([*backings.each, new.make(group)])
        volumelabels.attach(mirror)
    return list_backings(mirror)[-1]


def remove_backing(mirror: Mirror, name: str) -> KeptBacking:
    """Remove a backing on which nothing lies; its file stays, and is nobody's.

    One that an interrupted call left is removed by its path.

    Raises:
        UsageError: it is not one of the mirror's, or the only one.
        UnusableVolumeError: extents lie on it.
    """
    with _changing(mirror) as backings:
        kept = _find_left_over(mirror, name) or find_backing(mirror, name)
        with open_target(kept.path) as file:
            header = read_header(file)
            if header is None or header.uuid != kept.uuid:
                raise UnusableVolumeError(f"is not backing {kept.short}", where=kept.path, remedy="look where it is")
            used = _count(Backing(file, header))
            if used:
                raise UnusableVolumeError(
                    f"{counted(used, 'extent lies', 'extents lie')} on backing {kept.short}",
                    where=kept.path,
                    remedy=f"mirrortool backing drain {quoted_word(mirror.path)} {kept.short}, then remove it",
                )
            left = [each for each in backings.each if each.uuid != kept.uuid]
            if not left:
                raise UsageError("it is the only backing", where=mirror.path, remedy="add another before it is removed")
            if len(left) < len(backings.each):
                mirror.save_backings(left)
            unmake_backing(file)
        volumelabels.remove_one(kept.path)
    return kept


class DrainBacking:
    """Moves what lies on a backing to the others; `with` releases the locks.

    Attributes:
        kept: the backing.
        total: extents that are to be moved.
    """

    def __init__(self, mirror: Mirror, name: str) -> None:
        """Lock and open; from here on nothing new is written there.

        Raises:
            UsageError: there is no such backing.
            NoSpaceError: the others have no room for what lies there; nothing was changed.
            LockedError, UnusableVolumeError, ChangedOutsideError: a guard refuses, and why.
        """
        self.mirror = mirror
        self._is_cancelled = False
        with ExitStack() as opening:
            backings = opening.enter_context(_changing(mirror))
            self.kept = find_backing(mirror, name)
            store = open_backings(mirror, (), mirror.volumes, True)
            opening.enter_context(closing(store))
            assert isinstance(store, SpannedStore)
            number = [each.uuid for each in backings.each].index(self.kept.uuid)
            self._draining: Draining = store.draining(number)
            self.total = self._draining.left
            if not self.kept.is_draining:
                self.kept = replace(self.kept, is_draining=True)
                mirror.save_backings(self.kept if each.uuid == self.kept.uuid else each for each in backings.each)
            self._opened = Opened(opening.pop_all(), "draining", mirror.path)

    def __enter__(self) -> DrainBacking:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def run(self) -> int:
        """Move all extents, or as many as until `cancel`; returns how many are left."""
        self._opened.require()
        self._draining.run(lambda: self._is_cancelled)
        return self.left

    def cancel(self) -> None:
        """Stop soon; from any thread. The same call continues it later."""
        self._is_cancelled = True

    @property
    def left(self) -> int:
        """Extents that are not moved yet; from any thread."""
        return self._draining.left


def find_backing(mirror: Mirror, name: str) -> KeptBacking:
    """The backing of a mirror that has this path, or a uuid that begins so.

    Raises:
        UsageError: none has, or several.
    """
    backings = _backings_of(mirror).each
    by_uuid = [each for each in backings if len(name) >= _SHORT and each.uuid.hex().startswith(name.lower())]
    by_path = [each for each in backings if files.absolute(name) == each.path]
    found = by_path or by_uuid
    if len(found) != 1:
        what = "several backings have" if found else "no backing has"
        remedy = f"mirrortool backing list {quoted_word(mirror.path)} shows them"
        raise UsageError(f"{what} the path or uuid {name}", where=mirror.path, remedy=remedy)
    return found[0]


def _refuse_own(backings: KeptBackings, target: BackTarget) -> None:
    """Raise UsageError for what is a backing of the mirror already."""
    facts = files.find_facts(target.path)
    for kept in backings.each:
        theirs = files.find_facts(kept.path)
        if files.real(target.path) == files.real(kept.path) or (facts and theirs and facts.identity == theirs.identity):
            raise UsageError(f"is backing {kept.short} of this mirror already", where=target.path)


def _find_left_over(mirror: Mirror, path: str) -> KeptBacking | None:
    """What an interrupted call left at a path: a backing of this mirror that mirror.json does not name."""
    facts = files.find_facts(path)
    if facts is None or facts.kind not in ("file", "block device"):
        return None
    with files.open_file(path) as file:
        header = read_header(file)
    listed = {each.uuid for each in _backings_of(mirror).each}
    if header is None or header.mirror != mirror.uuid or header.uuid in listed:
        return None
    return KeptBacking(header.uuid, files.absolute(path))


@contextmanager
def _changing(mirror: Mirror) -> Iterator[KeptBackings]:
    """With the mirror locked, and its backings where they are said to be; what is seen of them is noted at the end.

    Raises:
        ChangedOutsideError: another program wrote to what holds the mirror.
    """
    with mirror.lock(exclusive=True, doing="backing"):
        backings = _backings_of(mirror)
        relocate(mirror, (), None)
        if problem := lastseen.find_problem(mirror):
            raise problem
        was_noted = lastseen.is_noted(mirror)
        lastseen.forget(mirror)
        try:
            yield mirror.backings or backings
        except HostError:
            raise  # it is not known what the volumes have
        except MirrortoolError:
            _note_again(mirror, was_noted)
            raise
        _note_again(mirror, was_noted)


def _note_again(mirror: Mirror, was_noted: bool) -> None:
    """Nobody but this call has written since what was noted before it was found to be so."""
    if was_noted:
        lastseen.note(mirror, lastseen.look(mirror))


def _backings_of(mirror: Mirror) -> KeptBackings:
    if mirror.backings is None:
        raise UsageError("the mirror has no backings", where=mirror.path, remedy="replay into a new mirror with --back")
    return mirror.backings


def _use_of(found: FoundBacking) -> BackingUse:
    if found.header is None:
        return BackingUse(found)
    with files.open_file(found.kept.path) as file:
        used = _count(Backing(file, found.header))
    return BackingUse(found, used, found.header.cells - used)


def _count(backing: Backing) -> int:
    """Extents that lie on a backing; one with a damaged record counts."""
    return sum(address != NOWHERE for _, address, _ in backing.entries())


def _primary_paths(mirror: Mirror) -> list[str]:
    """Of the volumes that the mirror's journal records on this host, if it is at hand."""
    with suppress(JournalError, HostError):
        return list(Journal(mirror.journal_path).volume_paths().values())
    return []
