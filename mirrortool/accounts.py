"""Users and groups of this host, and which of them this process runs as.

Not here: what they may do with a file (files.py, exposure.py).
"""

from __future__ import annotations

import grp
import os
import pwd

from mirrortool.errors import UsageError


def home() -> str | None:
    """The home directory of this user; None of root, whose files are the system's."""
    return os.path.expanduser("~") if os.geteuid() else None


def group_number(group: str) -> int:
    """The number of a group that is given by name or number.

    Raises:
        UsageError: there is none of this name.
    """
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise UsageError(f"there is no group {group!r}") from None


def is_root() -> bool:
    """Whether this process may do what root may."""
    return os.geteuid() == 0


def user_name(number: int) -> str:
    """The name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def group_name(number: int) -> str:
    """The name of a group, or the number if there is none."""
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)
