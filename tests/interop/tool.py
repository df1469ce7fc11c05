"""A primary's journal and a mirror of it, brought on by the commands that their users give.

Commands that end by themselves run in this process, as most of their time is otherwise the interpreter's start;
tests/cli and tests/docs start the program. A running recorder is a process of its own: fakes/live.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from mirrortool.cli.main import main
from mirrortool.journal.directory import Journal
from tests.fakes.loop import call


class Site:
    """A primary's journal and a mirror of it, driven by commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal"
        self.mirror = path / "mirror"

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run mirrortool; it must end with this code and without a traceback. Returns what it prints."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            ended = main([str(argument) for argument in arguments])
        assert ended == code, f"{arguments}: {ended}: {output.getvalue()}{errors.getvalue()}"
        assert "Traceback" not in errors.getvalue()
        return output.getvalue()

    def init(self, *volumes: str) -> None:
        self.run("init", self.journal, *volumes)

    def bring_up(self, *options: object) -> dict[str, Any]:
        """Record, replay, and verify; what replay reports."""
        self.run("record", self.journal, "--quiet")
        return self.follow(*options)

    def follow(self, *options: object) -> dict[str, Any]:
        """Replay, and verify with the mirror's table and with the journal's sums; what replay reports."""
        report = json.loads(self.run("replay", self.journal, self.mirror, "--json", "--quiet", *options))
        assert report["is_consistent"]
        for extra in ([], ["--journal", self.journal]):
            verified = json.loads(self.run("verify", self.mirror, "--json", "--quiet", *extra))
            assert verified["bad_pages"] == []
            assert verified["applied_lsn"] == report["applied_lsn"]
            assert verified["state_sum"] == report["state_sum"]
        return report

    def image(self, name: str = "disk") -> Path:
        """A mirror's volume."""
        return self.mirror / "volumes" / f"{name}.img"

    def prove(self) -> dict[str, Any]:
        """After a live recorder's clean stop: replay, verify; each volume is the mirror's, and what the journal has."""
        report = self.follow()
        for name, path in Journal(str(self.journal)).volume_paths().items():
            assert_same(path, self.image(name))
        scanned = json.loads(self.run("record", self.journal, "--json", "--quiet"))
        assert (scanned["pages_written"], scanned["pages_zeroed"], scanned["kind"]) == (0, 0, "scan")
        return report


def site_of_a_disk(path: Path, size: int) -> Site:
    """One whose only volume is a disk.img of this size, full of something."""
    made = Site(path)
    (path / "disk.img").write_bytes(b"disk" * (size // 4))
    made.init(f"disk={path}/disk.img")
    return made


def assert_same(primary: Path | str, copy: Path | str, size: int | None = None) -> None:
    """Byte for byte, and as long; on a device only the volume's bytes count."""
    call("cmp", *(["-n", size] if size else []), primary, copy)
    if size is None:
        assert os.path.getsize(primary) == os.path.getsize(copy)


def assert_as_sparse(primary: Path, copy: Path) -> None:
    """The copy uses at most 5 % more space; it may use less, as zeros that the primary had written become holes."""
    allocated = os.stat(copy).st_blocks
    assert allocated <= 1.05 * os.stat(primary).st_blocks, (allocated, os.stat(primary).st_blocks)


def check_file_system(image: Path | str) -> None:
    """Nothing is wrong with an ext4, and nothing is changed."""
    call("e2fsck", "-f", "-n", image)
