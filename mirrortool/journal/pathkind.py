"""What a path leads to, and how to say so to a user who named it where a journal or a mirror was wanted.

The same mistake has the same words and the same exit code in every command, and no name of a small file shows.

Not here: whether the journal or mirror can be read (directory.py of both).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from mirrortool import files, jsonfile
from mirrortool.errors import AccessError, MirrortoolError, NotAJournalError, NotAMirrorError
from mirrortool.wording import quoted_word


class PathKind(Enum):
    """What is there; `OTHER` is a directory that is none of ours, or not a directory at all."""

    JOURNAL = "a journal"
    COPY = "a copy of a journal"
    MIRROR = "a mirror"
    MISSING = "nothing"
    OTHER = "something else"


def kind_of(path: str) -> PathKind:
    """What a path leads to, by the small files that make a directory what it is.

    Raises:
        AccessError: that may not be seen; the error names the path itself.
    """
    with naming(path):
        if not path or not files.exists(path):
            return PathKind.MISSING
        if files.exists(files.join(path, "mirror.json")):
            return PathKind.MIRROR
        if files.exists(files.join(path, "journal.json")):
            return PathKind.COPY if files.exists(files.join(path, "copy.json")) else PathKind.JOURNAL
        return PathKind.OTHER


@contextmanager
def naming(path: str) -> Iterator[None]:
    """What may not be opened in a directory is told of the directory that the user named."""
    try:
        yield
    except AccessError as error:
        raise AccessError(error.what, where=path, remedy=error.remedy) from error


def require_directory(path: str) -> None:
    """Before a file in it is asked for: a journal is a directory.

    Raises:
        NotAJournalError: it is not.
    """
    with naming(path):
        is_directory = bool(path) and files.is_directory(path)
    if not is_directory:
        raise not_a_journal(path)


def not_a_journal(path: str) -> NotAJournalError:
    """The error for a path that is not a journal, though one was wanted."""
    if kind_of(path) == PathKind.MIRROR:
        journal = _journal_of(path)
        remedy = f"its journal is {journal}" if journal else "name its journal"
        return NotAJournalError("is a mirror, not a journal", where=path, remedy=remedy)
    what, remedy = _described(path, "a journal", "mirrortool init makes one")
    return NotAJournalError(what, where=path, remedy=remedy)


def not_a_mirror(path: str) -> NotAMirrorError:
    """The error for a path that is not a mirror, though one was wanted."""
    kind = kind_of(path)
    if kind in (PathKind.JOURNAL, PathKind.COPY):
        remedy = f"name a mirror of it; mirrortool replay {quoted_word(path)} MIRROR makes one"
        return NotAMirrorError(f"is {kind.value}, not a mirror", where=path, remedy=remedy)
    what, remedy = _described(path, "a mirror", "mirrortool replay makes one")
    return NotAMirrorError(what, where=path, remedy=remedy)


def neither(path: str) -> NotAJournalError:
    """The error for a path where a journal or a mirror was wanted."""
    makes = "mirrortool init makes a journal, mirrortool replay a mirror"
    what, remedy = _described(path, "a journal or a mirror", makes)
    return NotAJournalError(what, where=path, remedy=remedy)


def names_where_ours_is_made(path: str) -> set[str]:
    """What is in a directory that is to be a journal, copy or mirror, and may not be there yet.

    Raises:
        AccessError: it is not a directory.
    """
    facts = files.find_facts(path) if path else None
    if facts and facts.kind != "directory":
        raise in_the_way(path)
    return set(files.list_directory(path))


def in_the_way(path: str) -> AccessError:
    """The error for a path where a journal, copy or mirror is to be made, and something else is."""
    kind, facts = kind_of(path), files.find_facts(path)
    if facts and facts.kind != "directory":
        what = f"is a {facts.kind}, not a directory"
    else:
        what = "the directory is not empty" if kind == PathKind.OTHER else f"{kind.value} is here already"
    return AccessError(what, where=path, remedy="choose another path")


def _described(path: str, wanted: str, makes: str) -> tuple[str, str]:
    """What a path is that is neither a journal nor a mirror, and the remedy."""
    facts = files.find_facts(path) if path else None
    owner = _owner_of(path) if facts else None
    if facts is None:
        return "the path is empty" if not path else "does not exist", f"check the path; {makes}"
    if owner:
        return f"lies inside {owner}, and is not {wanted} itself", f"name {owner}"
    if facts.kind != "directory":
        return f"is a {facts.kind}, not {wanted}", f"name a directory; {makes}"
    return f"is a directory, but not {wanted}", f"check the path; {makes}"


def _owner_of(path: str) -> str | None:
    """The journal or mirror that has a path in its directory; None if none has."""
    place = files.parent(files.absolute(path))
    for _ in range(2):  # files/…, volumes/…
        with suppress(MirrortoolError):
            if kind_of(place) in (PathKind.JOURNAL, PathKind.COPY, PathKind.MIRROR):
                return place
        place = files.parent(place)
    return None


def _journal_of(mirror: str) -> str | None:
    """The journal of a mirror, as that notes it; None if that cannot be read."""
    with suppress(MirrortoolError):
        path = files.join(mirror, "mirror.json")
        fields = jsonfile.load(path, NotAMirrorError, newer=NotAMirrorError, known=jsonfile.MIRROR_FORMAT)
        return fields.text("journal_path") if fields else None
    return None
