"""PostgreSQL, data and log on two volumes, starts on any commit that is served, and finds every transaction whole.

The long run: pytest -m soak -s tests/interop/test_serve_postgres.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from tests.fakes.live import LiveRecorder
from tests.fakes.served import Served
from tests.fakes.volumes import fast_directory
from tests.interop.postgres import Cluster, mounted_exports, require_postgres
from tests.interop.tool import Site


@pytest.fixture
def site() -> Iterator[Site]:
    require_postgres()
    with fast_directory() as directory:
        Path(directory).chmod(0o711)
        made = Site(Path(directory))
        made.init(f"data={directory}/data.img:256M", f"log={directory}/log.img:192M")
        yield made


def starts_on(site: Site, lsn: int, number: int) -> None:
    """A twin of the cluster at a commit, on devices that nothing but the scratch stands behind."""
    place = site.path / f"twin-{number}"
    place.mkdir(mode=0o711)
    served = Served(site.journal, place / "s", "--until", lsn, "--writable", "--scratch", place)
    with served, mounted_exports(served, place) as (data, log):
        twin = Cluster(data, log, place / "run")
        twin.adopt()
        with twin.running():
            twin.check()


def check_commits(site: Site, count: int, seconds: int) -> int:
    """Load it, and start it at random commits of that time, while the recorder keeps running."""
    with LiveRecorder(site.journal) as live, mounted_exports(live, site.path, make=True) as (data, log):
        cluster = Cluster(data, log, site.path / "run")
        cluster.make()
        with cluster.running():
            cluster.fill(1)
            site.run("mark", site.journal, "filled")
            cluster.load(seconds)
            site.run("mark", site.journal, "loaded")
            found = list(commits(Journal(str(site.journal))))
            first, last = (next(each.lsn for each in found if each.name == name) for name in ("filled", "loaded"))
            among = [commit.lsn for commit in found if first <= commit.lsn <= last]
            chosen = random.Random().sample(among, min(count, len(among)))
            for number, lsn in enumerate(chosen):
                print(f"commit at LSN {lsn}, of {len(among)} commits")
                starts_on(site, lsn, number)
            cluster.check()
    return len(chosen)


def test_postgres_starts_on_two_commits(site: Site) -> None:
    assert check_commits(site, 2, 2) == 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_postgres_starts_on_a_hundred_commits(site: Site) -> None:
    assert check_commits(site, 100, 20) == 100
