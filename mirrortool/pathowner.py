"""Refuses to create anything inside a directory that belongs to another journal, copy or mirror.

Such a directory is known by its small files, also where it was only begun, or is damaged.
Rule: only what is made anew is refused there. What an older version put inside another's stays usable.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files, hostinfo
from mirrortool.errors import AccessError, HostError

_JOURNAL = ("journal.json", "local.json", "recorder.json", "copy.json", "promoting.json")
_MIRROR = ("mirror.json", "checkpoint.json")
_BESIDE = ("files", "sums", "lock")
"""A small file of ours has one of these beside it; alone, such as `local.json`, it may be anybody's."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What a directory is of: `kind` is `journal`, `copy` or `mirror`."""

    kind: str
    path: str


def find_owner(path: str) -> Owner | None:
    """The nearest journal, copy or mirror that has the path in its directory, links followed, whether it exists or not.

    A directory of ours does not lie in itself.
    """
    here = files.real(path)
    while (above := files.parent(here)) != here:
        if kind := kind_of(above):
            return Owner(kind, above)
        here = above
    return None


def find_owner_of_bytes(path: str) -> Owner | None:
    """The same of what a file or device holds, which may be a file behind a loop device."""
    places = [path, *hostinfo.backing_files(path)]
    return next((owner for place in places if (owner := find_owner(place))), None)


def kind_of(directory: str) -> str | None:
    """`journal`, `copy` or `mirror`; None for any other directory, and where nobody may look."""
    if not _has(directory, _BESIDE):
        return None
    if _has(directory, _MIRROR):
        return "mirror"
    if not _has(directory, _JOURNAL):
        return None
    return "copy" if _has(directory, ("copy.json",)) and not _has(directory, ("local.json",)) else "journal"


def check_free(path: str) -> None:
    """Nothing of ours is where something new is to be made.

    Raises:
        AccessError: the path lies in the directory of a journal, copy or mirror.
    """
    if owner := find_owner(path):
        what = f"lies inside the {owner.kind} {owner.path}"
        raise AccessError(what, where=path, remedy="choose a path outside of it")


def _has(directory: str, names: tuple[str, ...]) -> bool:
    for name in names:
        with suppress(HostError):
            if files.exists(files.join(directory, name)):
                return True
    return False
