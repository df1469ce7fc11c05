"""Checks that the volumes of a recorder are a primary's, not a mirror's.

After a fail-back the old journal still names the old primary's volume, which is a mirror's by then. It cannot be
recorded until that mirror is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping

from mirrortool.errors import ChangedOutsideError, UnusableVolumeError
from mirrortool.mirror import volumelabels
from mirrortool.wording import quoted_word


def check_own(paths: Mapping[str, str], *, take_over: bool) -> None:
    """Check that no volume belongs to a mirror.

    Args:
        paths: by volume.
        take_over: a volume may be adopted of a mirror that does not exist any more.
    Raises:
        UnusableVolumeError: one belongs to a mirror.
        ChangedOutsideError: one did, when last seen.
    """
    for name, path in paths.items():
        found = volumelabels.belonging(path)
        if found and found.is_there:
            raise UnusableVolumeError(
                f"volume {name} belongs to the mirror {found.path}",
                where=path,
                remedy=f"mirrortool promote {quoted_word(found.path)} makes it a primary's, "
                "which its own journal records then",
            )
        if found and not take_over:
            raise ChangedOutsideError(
                f"volume {name} belonged to the mirror {found.path}, which is not there",
                where=path,
                remedy="mount that if it is only away; if it is gone for good, record --scan accepts it as it is",
            )


def adopt(paths: Mapping[str, str]) -> None:
    """Make these volumes a primary's, whatever mirror that is gone had them."""
    for path in paths.values():
        if volumelabels.belonging(path):
            volumelabels.remove_one(path)
