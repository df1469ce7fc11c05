"""Files that a command writes beside its work, such as a trace or a picture: they replace an earlier one only."""

from __future__ import annotations

from mirrortool import files, pathowner
from mirrortool.errors import AccessError

_PICTURE_BEGINS = b"<svg "


def check_output(path: str, what: str, begins: bytes) -> None:
    """A file may be written there.

    Args:
        what: what the file is, such as `a trace`.
        begins: what every such file begins with.
    Raises:
        AccessError: it lies inside a journal, copy or mirror, or the file there is something else, such as a volume.
    """
    pathowner.check_free(path)
    facts = files.find_facts(path)
    if facts is None:
        return
    if facts.kind != "file":
        raise AccessError(f"is a {facts.kind}, not a file for {what}", where=path, remedy="name a file")
    with files.open_file(path) as file:
        if facts.size and file.pread(len(begins), 0) != begins:
            raise AccessError(f"does not hold {what}", where=path, remedy="choose another file")


def check_picture(path: str | None) -> None:
    """A picture may be written there, if one was asked for.

    Raises:
        AccessError: its directory does not exist; or as `check_output`.
    """
    if path is None:
        return
    if not files.is_directory(files.parent(path) or "."):
        raise AccessError("its directory does not exist", where=path, remedy="make it, or choose another file")
    check_output(path, "a figure", _PICTURE_BEGINS)


def is_same_place(path: str, other: str) -> bool:
    """Whether both names lead to one place, at which there need not be a file yet."""
    return files.real(path) == files.real(other)


def write_picture(path: str, text: str) -> None:
    """Write a picture, or replace an earlier one."""
    files.replace_unsynced(path, text.encode(), 0o644)
