"""Makes the volumes of a new mirror, each where the owner wants it.

A kind of storage is a class of `NewVolumes`, which has all volumes of its kind, and a line in `plan`.

Order: every kind checks all that it can; then each prepares; then what mirror.json keeps of them is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from mirrortool.mirror.filevolumes import NewFiles
from mirrortool.mirror.keptvolume import ElsewherePlace, KeptVolume
from mirrortool.mirror.nbdvolumes import NewExports
from mirrortool.nbd.uri import is_nbd_uri
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


def plan(
    directory: str,
    volumes: VolumeSet,
    targets: Mapping[str, str],
    journal_uuid: bytes,
    *,
    only: Collection[str] | None,
    overwrite: bool,
    raw: bool,
) -> list[NewVolumes]:
    """Which kind has which volumes.

    Args:
        directory: the mirror's.
        targets: what the owner named for some of them, by name.
        journal_uuid: of the journal that is mirrored.
        only: the names of those that the mirror is to hold; by default all.
        overwrite: whether data there that is not ours may be lost.
        raw: also where it is an image in a container format.
    Raises:
        UnusableVolumeError, UsageError: a target cannot be one, as its path or address alone tells.
    """
    held = [volume for volume in volumes if only is None or volume.name in only]
    uris = {name: target for name, target in targets.items() if is_nbd_uri(target)}
    paths = {name: target for name, target in targets.items() if name not in uris}
    remote = [volume for volume in held if volume.name in uris]
    local = [volume for volume in held if volume.name not in uris]
    return [
        NewFiles(directory, local, paths, overwrite=overwrite, raw=raw),
        NewExports(remote, uris, journal_uuid, volumes.page_size, overwrite=overwrite, raw=raw),
        NotHeld([volume for volume in volumes if volume not in held]),
    ]
