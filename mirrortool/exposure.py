"""Finds other users that can write or reach where mirrortool keeps its files, because they could redirect what root
writes there; `status` reports files that every user can read.

Only owners and permission bits count. An access control list can say more, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mirrortool import accounts, files

_ROOT = 0


@dataclass(frozen=True, slots=True)
class Writer:
    """A user or group beside root that may change names in a directory.

    Attributes:
        who: as a phrase, such as `user alice`.
        where: the directory.
        user: the name, if it is one user.
    """

    who: str
    where: str
    user: str = ""


def other_writer(path: str) -> Writer | None:
    """Somebody beside root who may write in a directory, or replace something on the way to it; None if nobody may.

    In a directory with the sticky bit only owners replace names; so /tmp is not a danger to what root has in it.
    """
    ends = {files.absolute(path), files.real(path)}
    for where in _ways(ends):
        found = files.permissions(where)
        if found is None:
            continue
        if found.owner != _ROOT:
            user = accounts.user_name(found.owner)
            return Writer(f"user {user}", where if found.is_directory else files.parent(where), user)
        if not found.is_directory or (found.is_sticky and where not in ends):
            continue
        if found.mode & 0o002:
            return Writer("any user", where)
        if found.mode & 0o020 and found.group != _ROOT:
            return Writer(f"group {accounts.group_name(found.group)}", where)
    return None


def first_open(paths: Iterable[str]) -> str | None:
    """The first of these files that every local user may read, and so lock; None if none is."""
    return next((path for path in paths if _is_open(files.real(path))), None)


def _is_open(path: str) -> bool:
    found = files.permissions(path)
    if found is None or not found.mode & 0o004:
        return False
    way = [each for each in map(files.permissions, _ways([files.parent(path)])) if each]
    return all(each.mode & 0o001 for each in way)


def _ways(paths: Iterable[str]) -> Iterator[str]:
    """Every directory from the root to each of some absolute paths, and these themselves; each once."""
    seen: dict[str, None] = {"/": None}
    for path in paths:
        at = ""
        for name in path.strip("/").split("/"):
            at = f"{at}/{name}"
            seen[at] = None
    yield from seen
