"""Makes the volumes of a new mirror, each where the owner wants it.

A kind of storage is a class of `NewVolumes`, which has all volumes of its kind, and a line in `plan`.

Order: every kind checks all that it can; then each prepares; then what mirror.json keeps of them is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mirrortool.errors import UsageError
from mirrortool.mirror.filevolumes import NewFiles, refuse_inside, refuse_shared
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.keptvolume import ElsewherePlace, KeptVolume
from mirrortool.mirror.nbdvolumes import NewExports
from mirrortool.mirror.newbacking import NewBackings
from mirrortool.nbd.uri import is_nbd_uri
from mirrortool.store.backingformat import EXTENT_DEFAULT
from mirrortool.volume import Volume, VolumeSet


class NewVolumes(Protocol):
    """The volumes of a new mirror that are to be in one kind of storage."""

    def check(self, primary_paths: Iterable[str]) -> None:
        """Whether they can be there; nothing is changed.

        Args:
            primary_paths: of the volumes that the journal records on this host; none of them may be written.
        Raises:
            UnusableVolumeError, HostError: they cannot.
        """

    def prepare(self, group: int | None) -> None:
        """Make them read as zeros, with their sizes. Repeated after a crash, it does the same.

        Args:
            group: the number of one whose members may read files that are made; by default only the owner may.
        """

    def kept(self) -> list[KeptVolume]:
        """What mirror.json is to keep of them, once they are prepared."""

    def beside(self) -> Mapping[str, object]:
        """What mirror.json is to keep beside its volumes, likewise."""


@dataclass(frozen=True, slots=True)
class WantedPlaces:
    """What the owner wants of a new mirror's volumes.

    Attributes:
        targets: paths or addresses of some of them, by name.
        backings: on which the others are to lie; without one they are images in the mirror's directory.
        extent_bytes: of an extent there.
        only: the names of those that the mirror is to hold; by default all.
        overwrite: whether data in all of these that is not ours may be lost.
        raw: also where it is an image in a container format.
    """

    targets: Mapping[str, str] = field(default_factory=dict)
    backings: Sequence[BackTarget] = ()
    extent_bytes: int = EXTENT_DEFAULT
    only: Collection[str] | None = None
    overwrite: bool = False
    raw: bool = False


class NotHeld:
    """Volumes that the mirror does not hold."""

    def __init__(self, volumes: Sequence[Volume]) -> None:
        self._volumes = volumes

    def check(self, primary_paths: Iterable[str]) -> None:
        """Nothing."""

    def prepare(self, group: int | None) -> None:
        """Nothing."""

    def kept(self) -> list[KeptVolume]:
        return [KeptVolume(volume.name, volume.start, ElsewherePlace()) for volume in self._volumes]

    def beside(self) -> dict[str, object]:
        return {}


def plan(
    directory: str, uuid: bytes, volumes: VolumeSet, journal_uuid: bytes, wanted: WantedPlaces
) -> list[NewVolumes]:
    """Which kind has which volumes.

    Args:
        directory, uuid: the mirror's.
        journal_uuid: of the journal that is mirrored.
    Raises:
        UnusableVolumeError, UsageError: a target cannot be one, as its path or address alone tells.
    """
    may = {"overwrite": wanted.overwrite, "raw": wanted.raw}
    held = [volume for volume in volumes if wanted.only is None or volume.name in wanted.only]
    uris = {name: target for name, target in wanted.targets.items() if is_nbd_uri(target)}
    paths = {name: target for name, target in wanted.targets.items() if name not in uris}
    remote = [volume for volume in held if volume.name in uris]
    local = [volume for volume in held if volume.name not in uris]
    kinds: list[NewVolumes] = []
    if wanted.backings:
        backs = [each.path for each in wanted.backings]
        refuse_shared(
            [*((f"volume {name}", path) for name, path in paths.items()), *(("a backing", path) for path in backs)]
        )
        refuse_inside(backs, directory, "volumes")
        spanned = [volume for volume in local if volume.name not in paths]
        local = [volume for volume in local if volume.name in paths]
        if not spanned:
            raise UsageError(
                "no volume is left for the backings", where=directory, remedy="leave out --back or --volume"
            )
        kinds.append(NewBackings(spanned, wanted.backings, uuid, wanted.extent_bytes, **may))
    return [
        *kinds,
        NewFiles(directory, local, paths, **may),
        NewExports(remote, uris, journal_uuid, volumes.page_size, **may),
        NotHeld([volume for volume in volumes if volume not in held]),
    ]
