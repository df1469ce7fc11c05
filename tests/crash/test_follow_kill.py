"""kill -9 of recorder and follower in turn, under load: the one never ends for it, and the mirror becomes the volume.

The long run: pytest -m soak tests/crash/test_follow_kill.py
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal.commits import newest_commits
from mirrortool.journal.directory import Journal
from tests.crash.load import Kit, make_kit
from tests.fakes.follower import Follower
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap

KILLS = 4
SOAK_KILLS = 100


@pytest.fixture
def kit() -> Iterator[Kit]:
    with fast_directory() as path:
        yield make_kit(Path(path))


def last_commit(kit: Kit) -> int:
    (newest,) = newest_commits(Journal(str(kit.site.journal)), 1)
    return newest.lsn


def check_end(kit: Kit, follower: Follower) -> None:
    """After a clean stop of the recorder: the mirror becomes the volume, and the follower ends with 0."""
    kit.live.start()
    kit.model.reconcile(kit.read())
    kit.live.finish()
    follower.wait_for_commit(last_commit(kit))
    assert "the mirror is at LSN" in follower.stop()
    assert kit.site.image().read_bytes() == (kit.site.path / "disk.img").read_bytes() == kit.model.image
    kit.site.run("verify", kit.site.mirror, "--quiet")


def kill_recorder_often(kit: Kit, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with_recovery_killed = 3
    follower = Follower(kit.site.journal, kit.site.mirror)
    follower.start()
    for number in range(kills):
        kit.live.start()
        kit.model.reconcile(kit.read())
        loads = kit.load(seed * 1000 + number)
        nap(chance.choice([0.02, 0.2, 0.8]) * chance.uniform(0.3, 1.0))
        kit.live.kill()
        kit.join(loads)
        if number % with_recovery_killed == 1:
            kit.live.begin()
            nap(chance.uniform(0.1, 0.5))
            kit.live.kill()
        assert follower.process.poll() is None, follower.lines
    check_end(kit, follower)


def test_the_recorder_may_be_killed_as_often_as_it_likes(kit: Kit) -> None:
    kill_recorder_often(kit, KILLS, 1)


def kill_follower_often(kit: Kit, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    follower = Follower(kit.site.journal, kit.site.mirror, "--quiet")
    kit.live.start()
    kit.live.wait_for_base()
    loads = kit.load(seed)
    for number in range(kills):
        follower.start()
        follower.wait_until(lambda: follower.checkpoint() is not None)
        nap(chance.uniform(0.05, 0.4))
        follower.kill()
        checkpoint = follower.checkpoint()
        assert checkpoint
        if number % 4 == 0:
            kit.site.run("verify", kit.site.mirror, "--quiet", code=0 if checkpoint.is_consistent else 3)
    kit.live.kill()
    kit.join(loads)
    follower.start()
    check_end(kit, follower)


def test_the_follower_may_be_killed_as_often_as_it_likes(kit: Kit) -> None:
    kill_follower_often(kit, KILLS, 2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_soak_kills(kit: Kit, seed: int) -> None:
    (kill_recorder_often, kill_follower_often)[seed % 2](kit, SOAK_KILLS, 10 + seed)


def test_it_waits_for_a_journal_that_is_not_there_yet(tmp_path: Path) -> None:
    with Follower(tmp_path / "journal", tmp_path / "mirror", "--observer", "polling") as follower:
        follower.wait_for("waiting for a journal")
        kit = make_kit(tmp_path)
        follower.wait_until(lambda: follower.checkpoint() is not None)
        kit.site.run("record", kit.site.journal, "--quiet")
        follower.wait_for_commit(last_commit(kit))
        follower.stop(signal.SIGINT)
    assert "the journal's files are polled, not watched" in follower.lines
    with Follower(tmp_path / "none", tmp_path / "nothing") as waiting:
        waiting.wait_for("waiting for a journal")
        waiting.wait_until(lambda: waiting.catches(signal.SIGTERM))
    assert not (tmp_path / "nothing").exists()
