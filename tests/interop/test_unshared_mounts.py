"""A second recorder that comes by a mount which shares no locks: one of the two stops, and no commit is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require_tools
from tests.interop.tool import Site


@contextmanager
def bound(source: Path, where: Path) -> Iterator[Path]:
    """The same directory once more, through FUSE: what is locked here is not locked there."""
    require_tools("bindfs", "fusermount3")
    where.mkdir()
    mounted = subprocess.run(["bindfs", source, where], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"bindfs: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        call("fusermount3", "-u", where)


def test_a_recorder_stops_when_another_appended_by_a_second_mount(tmp_path: Path) -> None:
    require_tools("qemu-io")
    site = Site(tmp_path)
    (tmp_path / "disk.img").write_bytes(b"disk" * (1 << 18))
    site.init(f"disk={tmp_path / 'disk.img'}")
    site.run("record", site.journal, "--quiet")
    with LiveRecorder(site.journal) as live, bound(site.journal, tmp_path / "bound") as other:
        call("qemu-io", "-f", "raw", "-c", "write -P 1 0 4k", "-c", "flush", live.uri())
        live.wait_until(lambda: Journal(str(site.journal)).recorder_checkpoint().position.lsn > 3)
        site.run("record", other, "--quiet", "--allow-fuzzy")  # a scan: it locks the journal there, and finds it free
        theirs = list(commits(Journal(str(site.journal))))
        told = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write -P 2 0 4k", "-c", "flush", live.uri()],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Input/output error" in told.stdout + told.stderr
        said = live.wait(code=31)
        assert "somebody else wrote to it" in said + "\n".join(live.lines)
    assert list(commits(Journal(str(site.journal)))) == theirs
    site.run("verify", site.journal, "--quiet")
    site.bring_up()
