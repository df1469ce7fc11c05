"""A directory of ours is known by what lies in it, whole, begun or damaged, and by nothing that others have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirrortool import pathowner
from mirrortool.errors import AccessError
from tests.fakes.volumes import loop_device


def lay(place: Path, *names: str) -> Path:
    """Empty files, and directories where a name ends with a slash."""
    for name in names:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"")
    return place


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("journal.json", "files/"), "journal"),
        (("journal.json", "lock"), "journal"),
        (("local.json", "files/"), "journal"),
        (("recorder.json", "sums/"), "journal"),
        (("promoting.json", "lock"), "journal"),
        (("journal.json", "files/", "copy.json"), "copy"),
        (("copy.json", "files/"), "copy"),
        (("journal.json", "files/", "copy.json", "local.json"), "journal"),
        (("mirror.json", "sums/"), "mirror"),
        (("checkpoint.json", "sums/"), "mirror"),
        (("local.json",), None),
        (("checkpoint.json", "model.bin"), None),
        (("files/", "lock", "sums/"), None),
        ((), None),
    ],
)
def test_the_kind_of_a_directory(tmp_path: Path, names: tuple[str, ...], kind: str | None) -> None:
    lay(tmp_path, *names)
    assert pathowner.kind_of(str(tmp_path)) == kind
    found = pathowner.find_owner(str(tmp_path / "a" / "b"))
    assert (found.kind if found else None) == kind


def test_the_nearest_counts_and_a_directory_is_not_inside_itself(tmp_path: Path) -> None:
    lay(tmp_path, "J/journal.json", "J/files/", "J/M/mirror.json", "J/M/sums/")
    assert pathowner.find_owner(str(tmp_path / "J" / "M" / "x")) == pathowner.Owner("mirror", str(tmp_path / "J" / "M"))
    assert pathowner.find_owner(str(tmp_path / "J" / "M")) == pathowner.Owner("journal", str(tmp_path / "J"))
    assert pathowner.find_owner(str(tmp_path / "J")) is None


def test_links_are_followed(tmp_path: Path) -> None:
    lay(tmp_path, "J/journal.json", "J/files/")
    (tmp_path / "link").symlink_to("J/files")
    with pytest.raises(AccessError, match="lies inside the journal"):
        pathowner.check_free(str(tmp_path / "link" / "new"))
    (tmp_path / "J" / "out").symlink_to(tmp_path)
    pathowner.check_free(str(tmp_path / "J" / "out" / "new"))


def test_a_loop_device_lies_where_its_file_does(tmp_path: Path) -> None:
    lay(tmp_path, "M/mirror.json", "M/volumes/")
    lay(tmp_path, "M/lock")
    with loop_device(tmp_path / "M" / "volumes", 1 << 20) as device:
        found = pathowner.find_owner_of_bytes(device)
        assert found == pathowner.Owner("mirror", str(tmp_path / "M"))
        assert pathowner.find_owner(device) is None


def test_nothing_is_asked_of_what_nobody_may_look_at(tmp_path: Path) -> None:
    lay(tmp_path, "J/journal.json", "J/files/")
    os.chmod(tmp_path / "J", 0)
    try:
        expected = None if os.geteuid() else "journal"
        assert pathowner.kind_of(str(tmp_path / "J")) == expected
    finally:
        os.chmod(tmp_path / "J", 0o700)
