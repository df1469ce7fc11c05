"""Opens the volumes of a mirror as one store, whatever each is kept in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from mirrortool.mirror.backingvolumes import open_backings
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.filevolumes import open_files
from mirrortool.mirror.keptbacking import SpannedPlace
from mirrortool.mirror.keptvolume import ElsewherePlace, KeptVolume, LocalPlace, Place
from mirrortool.mirror.nbdplace import NbdPlace
from mirrortool.mirror.nbdvolumes import open_exports
from mirrortool.store.absent import AbsentStore
from mirrortool.store.interface import Store
from mirrortool.store.joined import JoinedStore
from mirrortool.volume import VolumeSet

_OPENERS: dict[type[Place], Callable[[Mirror, Sequence[KeptVolume], VolumeSet, bool], Store]] = {
    LocalPlace: open_files,
    NbdPlace: open_exports,
    ElsewherePlace: lambda _mirror, _kept, volumes, _write: AbsentStore(volumes),
    SpannedPlace: open_backings,
}
"""What opens the volumes of a kind, all at once: those of the mirror, with their sizes, and whether to write them."""


def open_store(mirror: Mirror, *, write: bool) -> Store:
    """The volumes, locked and as the owner named them.

    Args:
        write: to write; then with all volumes of the journal, and else with those that the mirror holds.
    Raises:
        LockedError, UnusableVolumeError, ChangedOutsideError: a guard refuses, and why.
    """
    stores: list[Store] = []
    volumes = mirror.volumes
    with ExitStack() as opening:
        for kind, open_kind in _OPENERS.items():
            kept = [volume for volume in mirror.kept if type(volume.place) is kind]
            if kept and (write or kind is not ElsewherePlace):
                theirs = VolumeSet([volumes[each.name] for each in kept], mirror.page_size)
                stores.append(open_kind(mirror, kept, theirs, write))
                opening.callback(stores[-1].close)
        opening.pop_all()
    return stores[0] if len(stores) == 1 else JoinedStore(stores)
