"""A mirror on a file system that fills: replay ends with 30, the mirror is a commit, and with space it continues."""

import os
import shutil
from contextlib import contextmanager, suppress

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from tests.fakes.journals import Commit, JournalMaker, Write, assert_is_commit, images_of
from tests.fakes.loop import require_loops, small_file_system
from tests.fakes.serial import volumes_at

MIB = 1 << 20
PAGE = 4096
COMMITS = 12


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """Commits of 1 MiB each, some of it scattered; more than a window of them in all."""
    path = tmp_path_factory.mktemp("full")
    maker = JournalMaker(path / "journal", {"disk": 64 * MIB}, page_size=PAGE)
    for number in range(COMMITS):
        maker.frame(Write("disk", number * 512, os.urandom(MIB - 20 * PAGE)))
        maker.frame(*(Write("disk", 8000 + number + 37 * each, os.urandom(PAGE)) for each in range(20)), Commit())
    return maker.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    require_loops()
    with small_file_system(tmp_path_factory.mktemp("small"), 20 * MIB) as where:
        yield where


@contextmanager
def filled(where, left):
    """Meanwhile, so many bytes are free."""
    filler = where / "filler"
    usage = os.statvfs(where)
    try:
        with open(filler, "wb") as file, suppress(OSError):  # a block for the filler's own extents may be missing
            os.posix_fallocate(file.fileno(), 0, max(1, usage.f_bavail * usage.f_frsize - left))
        yield
    finally:
        filler.unlink()


@pytest.fixture
def mirror(small):
    """Where a mirror can be made; gone afterwards."""
    yield small / "mirror"
    shutil.rmtree(small / "mirror", ignore_errors=True)


def replay(journal, mirror, *options):
    return main(["replay", journal.path, str(mirror), "--quiet", "--replace-slot", *options])


@pytest.mark.parametrize("left", [16384, 300_000, MIB, 5 * MIB + 100_000, 9 * MIB])
def test_a_full_disk_leaves_a_commit_and_replay_goes_on(journal, small, mirror, left):
    assert replay(journal, mirror, "--until", "22") == 0
    with filled(small, left):
        assert replay(journal, mirror) == 30
        assert assert_is_commit(journal, mirror) >= 22
        assert main(["verify", str(mirror), "--quiet"]) == 0
    assert replay(journal, mirror) == 0
    assert images_of(mirror) == volumes_at(journal)
    assert main(["verify", str(mirror), "--quiet"]) == 0


TIGHT = range(11 * MIB, 11 * MIB + 300_000, 8 * 4096)


@pytest.mark.parametrize(
    "left", [0, *TIGHT[::4], *(pytest.param(left, marks=pytest.mark.soak) for left in TIGHT if left not in TIGHT[::4])]
)
def test_without_space_for_sums_or_the_checkpoint_the_mirror_is_truthful(journal, small, mirror, left):
    """Blocks for the pages can be had, but hardly any for what proves them."""
    assert replay(journal, mirror, "--until", "22") == 0
    with filled(small, left):
        assert replay(journal, mirror) in (0, 30)
        checkpoint = Mirror(str(mirror)).checkpoint
        if checkpoint.is_consistent:
            assert_is_commit(journal, mirror)
        assert main(["verify", str(mirror), "--quiet"]) in (0 if checkpoint.is_consistent else 3, 30)
    assert replay(journal, mirror) == 0
    assert images_of(mirror) == volumes_at(journal)


def test_a_mirror_that_cannot_even_be_made(journal, small, mirror):
    for left in range(0, 60_000, 8192):
        with filled(small, left):
            assert replay(journal, mirror) == 30
    assert replay(journal, mirror) == 0
    assert_is_commit(journal, mirror)
