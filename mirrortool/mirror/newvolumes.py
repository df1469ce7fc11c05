"""Makes the volumes of a new mirror, each where the owner wants it.

A kind of storage is a class of `NewVolumes`, which has all volumes of its kind, and a line in `plan`.

Order: every kind checks all that it can; then each prepares; then what mirror.json keeps of them is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from mirrortool.mirror.filevolumes import NewFiles
from mirrortool.mirror.keptvolume import KeptVolume
from mirrortool.mirror.nbdvolumes import NewExports
from mirrortool.nbd.uri import is_nbd_uri
from mirrortool.volume import VolumeSet


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


def plan(
    directory: str, volumes: VolumeSet, targets: Mapping[str, str], journal_uuid: bytes, *, overwrite: bool, raw: bool
) -> list[NewVolumes]:
    """Which kind has which volumes.

    Args:
        directory: the mirror's.
        targets: what the owner named for some of them, by name.
        journal_uuid: of the journal that is mirrored.
        overwrite: whether data there that is not ours may be lost.
        raw: also where it is an image in a container format.
    Raises:
        UnusableVolumeError, UsageError: a target cannot be one, as its path or address alone tells.
    """
    uris = {name: target for name, target in targets.items() if is_nbd_uri(target)}
    paths = {name: target for name, target in targets.items() if name not in uris}
    remote = [volume for volume in volumes if volume.name in uris]
    local = [volume for volume in volumes if volume.name not in uris]
    return [
        NewFiles(directory, local, paths, overwrite=overwrite, raw=raw),
        NewExports(remote, uris, journal_uuid, volumes.page_size, overwrite=overwrite, raw=raw),
    ]
