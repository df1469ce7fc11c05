"""The metrics' file is replaced whole, now and then; that it cannot be is told once, and is nobody's failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.metrics import Sample, samples_of
from mirrortool.metricsfile import WRITE_SECONDS, MetricsFile
from tests.conftest import FakeClock


class Site:
    """A file, how often it was collected for, and what was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.collected = 0
        self.told: list[str] = []
        self.file = MetricsFile(str(path), self._collect, self.told.append)

    def _collect(self) -> list[Sample]:
        self.collected += 1
        return samples_of("record", {"journal": "j"}, {"head_lsn": self.collected})

    @property
    def value(self) -> int:
        return int(self.path.read_text().split()[-1])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "m.prom")


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_written_at_once_then_every_five_seconds_and_at_the_end(site: Site, fake_clock: FakeClock) -> None:
    site.file.tick()
    assert site.value == 1
    for _ in range(79):  # 19.75 s
        fake_clock.advance(0.25)
        site.file.tick()
    assert site.value == site.collected == 1 + 19.75 // WRITE_SECONDS
    site.file.write()
    assert site.value == 5


@pytest.mark.usefixtures("strict_umask")
def test_everybody_may_read_it(site: Site) -> None:
    site.file.write()
    assert site.path.stat().st_mode & 0o777 == 0o644


def test_a_reader_never_sees_half_of_it(site: Site) -> None:
    site.file.write()
    with site.path.open() as reader:
        site.file.write()
        assert reader.read().endswith(" 1\n")
    assert site.value == 2
    assert os.listdir(site.path.parent) == ["m.prom"]


def test_a_failure_is_told_once_and_mends_itself(site: Site) -> None:
    site.path.mkdir()
    site.file.write()
    site.file.write()
    assert len(site.told) == 1 and "metrics are not written" in site.told[0]
    assert not [name for name in os.listdir(site.path.parent) if name != "m.prom" and name.endswith(".prom")]
    site.path.rmdir()
    site.file.write()
    assert site.value == 3


def test_no_directory_is_no_failure(tmp_path: Path) -> None:
    site = Site(tmp_path / "nothing" / "m.prom")
    site.file.tick()
    assert len(site.told) == 1


def test_what_another_user_put_in_the_way_is_not_written_through(site: Site, tmp_path: Path) -> None:
    """The directory of the collector may be somebody else's, and a recorder may be root."""
    (tmp_path / "secret").write_text("kept")
    os.symlink(tmp_path / "secret", tmp_path / "m.prom.new")
    os.symlink(tmp_path / "secret", site.path)
    site.file.write()
    assert (tmp_path / "secret").read_text() == "kept"
    assert site.value == 1 and not site.path.is_symlink()
