"""Volumes of a mirror in files and devices: opening those that are there, and making new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mirrortool import files, pathowner
from mirrortool.errors import ChangedOutsideError, UnusableVolumeError
from mirrortool.files import Facts, File, Identity
from mirrortool.mirror.directory import MAKE_ANEW, Mirror, is_primarys_volume
from mirrortool.mirror.keptvolume import KeptVolume, LocalPlace
from mirrortool.mirror.targetvolume import Primaries, check_target, open_target, prepare_target, too_small
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import Store
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import exact_bytes


def open_files(mirror: Mirror, kept: Sequence[KeptVolume], volumes: VolumeSet, write: bool) -> Store:
    """A store of these volumes of a mirror, locked and as the owner named them.

    Raises:
        LockedError, UnusableVolumeError, ChangedOutsideError: a guard refuses, and why.
    """
    opened: dict[str, File] = {}
    try:
        for each in kept:
            opened[each.name] = _open_volume(mirror, each, volumes[each.name], write)
        return FlatStore(volumes, opened, must_stay=write)
    except BaseException:
        for file in opened.values():
            file.close()
        raise


class NewFiles:
    """Volumes of a new mirror: images in its directory, and files and devices that the owner named."""

    def __init__(
        self, directory: str, volumes: Sequence[Volume], targets: Mapping[str, str], *, overwrite: bool, raw: bool
    ) -> None:
        """
        Args:
            directory: the mirror's.
            targets: paths of those that are not to be images in the mirror's directory.
            overwrite: whether data in them that is not ours may be lost.
            raw: also where it is an image in a container format.
        Raises:
            UnusableVolumeError: two targets are one, or a target lies where none may.
        """
        self._directory = directory
        self._volumes = volumes
        self._targets = targets
        self._overwrite, self._raw = overwrite, raw
        refuse_shared((f"volume {name}", path) for name, path in targets.items())
        refuse_inside(targets.values(), directory, "volumes")

    def check(self, primary_paths: Iterable[str]) -> None:
        """Nothing is changed.

        Args:
            primary_paths: of the volumes that the journal records on this host.
        Raises:
            UnusableVolumeError: a target cannot be one.
        """
        primaries = Primaries(primary_paths)
        for volume in self._volumes:
            may_clear = self._overwrite if volume.name in self._targets else None
            check_target(self._place_of(volume), volume, primaries=primaries, overwrite=may_clear, raw=self._raw)

    def prepare(self, group: int | None) -> None:
        """Make them read as zeros, with their sizes.

        Args:
            group: the number of one whose members may read what is made; by default only the owner may.
        """
        for volume in self._volumes:
            may_clear = self._overwrite and volume.name in self._targets
            prepare_target(self._place_of(volume), volume, overwrite=may_clear, group=group)

    def kept(self) -> list[KeptVolume]:
        """What mirror.json is to keep of them, once they are prepared."""
        return [KeptVolume(volume.name, volume.start, self._kept_place(volume)) for volume in self._volumes]

    def beside(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def _place_of(self, volume: Volume) -> str:
        """Where a volume is to be. What an interrupted call left at our own place is empty, and ours."""
        target = self._targets.get(volume.name)
        return files.join(self._directory, _own_name(volume)) if target is None else files.absolute(target)

    def _kept_place(self, volume: Volume) -> LocalPlace:
        if volume.name not in self._targets:
            return LocalPlace(_own_name(volume), None)
        path = self._place_of(volume)
        facts = files.find_facts(path)
        assert facts is not None
        return LocalPlace(path, facts.identity)


def is_same(recorded: Identity, found: Identity) -> bool:
    """Whether this is what was recorded. A file system's own number may be another after each boot."""
    return recorded.is_device == found.is_device and recorded.inode == found.inode


def _open_volume(mirror: Mirror, kept: KeptVolume, volume: Volume, write: bool) -> File:
    place = kept.place
    assert isinstance(place, LocalPlace)
    path = place.file_path(mirror.path)
    file = open_target(path, write=write)
    try:
        _check_volume(mirror, place, volume, file.facts(), path)
    except BaseException:
        file.close()
        raise
    return file


def _check_volume(mirror: Mirror, place: LocalPlace, volume: Volume, facts: Facts, path: str) -> None:
    if place.identity and not is_same(place.identity, facts.identity):
        raise ChangedOutsideError(
            "another file or device than the mirror was made on", where=path, remedy="put the right one back"
        )
    if facts.identity.is_device:
        if facts.size < volume.size:
            raise too_small(path, facts.size, volume)
    elif facts.size != volume.size and mirror.checkpoint.is_finished:
        raise ChangedOutsideError(
            f"has {exact_bytes(facts.size)}, the mirror left it with {exact_bytes(volume.size)}",
            where=path,
            remedy=MAKE_ANEW,
        )


def _own_name(volume: Volume) -> str:
    return files.join("volumes", f"{volume.name}.img")


def refuse_shared(targets: Iterable[tuple[str, str]]) -> None:
    """Before anything is changed: no two paths lead to one file or device, whether it exists yet or not.

    Args:
        targets: what each is for, and its path.
    """
    seen: dict[Identity | str, str] = {}
    for what, target in targets:
        facts = files.find_facts(target)
        place = facts.identity if facts else files.real(target)
        if place in seen:
            raise UnusableVolumeError(f"{seen[place]} and {what} would share one target", where=target)
        seen[place] = what


def refuse_inside(targets: Iterable[str], mirror: str, but: str) -> None:
    """No target is among the files of a journal, copy or mirror, this one included but for one of its directories.

    A volume of a promoted mirror is the disk to which a primary that was left fails back.
    """
    here = files.real(mirror)
    inside, allowed = files.join(here, ""), files.join(here, but, "")
    for target in map(files.real, targets):
        owner = pathowner.find_owner_of_bytes(target)
        if target.startswith(inside) and not target.startswith(allowed):
            raise UnusableVolumeError("lies in the mirror's directory", where=target, remedy="choose another target")
        if owner and owner.path != here and not is_primarys_volume(owner.path, target):
            what = f"lies inside the {owner.kind} {owner.path}"
            raise UnusableVolumeError(what, where=target, remedy="choose another target")
