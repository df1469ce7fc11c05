"""kill -9 of a real replay at any moment: the mirror is a commit or says that it rolls forward; the next ends right.

The process is slowed down by many small frames, not by sleeping. When it is killed is drawn from a seed, in fractions
of the time that a whole run takes here. The long run: pytest -m soak tests/crash/test_replay_kill.py
"""

import json
import random
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from tests.fakes.journals import (
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    assert_is_commit,
    images_of,
    memory_directory,
)
from tests.fakes.serial import volumes_at
from tests.fakes.waiting import nap

KILLS = 6
SOAK_KILLS = 60
PAGE = 4096
SIZES = {"disk": 24 << 20, "log": (8 << 20) + 777}


@pytest.fixture(scope="module")
def made():
    """A journal of many small commits, a few large ones, and one that is larger than a window."""
    chance = random.Random(20)
    with memory_directory() as path:
        maker = JournalMaker(path / "journal", SIZES, page_size=PAGE, file_bytes=4 << 20)
        for number in range(1600):
            fill_frame(maker, chance, number)
        for part in range(40):  # one commit of more than 32 MiB
            maker.frame(Write("disk", part * 100, bytes([part + 1]) * (PAGE * 256)))
        maker.frame(Commit("large"))
        for number in range(800):
            fill_frame(maker, chance, number)
        maker.frame(Commit("end"))
        journal = maker.close()
        started = time.monotonic()
        assert run(journal, path / "whole").wait() == 0
        yield SimpleNamespace(
            path=path,
            journal=journal,
            mirror=path / "mirror",
            end=maker.commits[-1],
            last=volumes_at(journal, maker.commits[-1]),
            seconds=time.monotonic() - started,
        )


def fill_frame(maker, chance, number):
    name = chance.choice(list(SIZES))
    pages = maker.volumes.page_count(maker.volumes[name])
    page = chance.randrange(pages - 8)
    kind = chance.random()
    if kind < 0.01:
        operation = Resize(name, SIZES[name] - chance.randrange(0, 50000))
    elif kind < 0.1:
        operation = Zero(name, page, chance.randrange(1, 8))
    else:
        operation = Write(name, page, chance.randbytes(8) * (PAGE // 8 * chance.randrange(1, 4)))
    maker.frame(operation, *([Commit()] if number % 3 == 0 else []))


def run(journal, mirror):
    options = ["--quiet", "--unit", "op", "--replace-slot"]
    command = [sys.executable, "-m", "mirrortool", "replay", journal.path, str(mirror), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process, seconds):
    """Kill it after that long, unless it ends before; whether it was killed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.parametrize("kills", [KILLS, pytest.param(SOAK_KILLS, marks=pytest.mark.soak)])
def test_killed_at_any_moment(made, capsys, kills):
    chance, seconds = random.Random(11), made.seconds
    killed = between = 0
    for number in range(kills):
        if number % 4 == 0:
            shutil.rmtree(made.mirror, ignore_errors=True)
        if kill_after(run(made.journal, made.mirror), seconds * chance.uniform(0.1, 1.0)):
            killed += 1
        else:  # the machine is faster than when it was timed
            seconds *= 0.6
        if not (made.mirror / "mirror.json").exists():
            continue
        between += check_truthful(made, capsys)
        if number % 4 == 3:
            assert main(["replay", made.journal.path, str(made.mirror), "--quiet", "--replace-slot"]) == 0
            assert images_of(made.mirror) == made.last
            assert main(["verify", str(made.mirror), "--quiet"]) == 0
    assert killed > kills // 3
    assert between, "no kill ever met a replay at work"


def check_truthful(made, capsys):
    """Verify finds no bad page and says what status says; a commit is one. Whether the mirror is between commits."""
    checkpoint = Mirror(str(made.mirror)).checkpoint
    code = main(["verify", str(made.mirror), "--quiet"])
    assert code == (0 if checkpoint.is_consistent else 3), capsys.readouterr().err
    capsys.readouterr()
    assert main(["status", str(made.mirror), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["applied_lsn"] == checkpoint.position.lsn
    if checkpoint.is_consistent and checkpoint.position.lsn < made.end:
        assert_is_commit(made.journal, made.mirror)
    return not checkpoint.is_consistent


@pytest.mark.parametrize("kills", [4, pytest.param(SOAK_KILLS, marks=pytest.mark.soak)])
def test_killed_while_the_mirror_is_made(made, kills):
    """Whatever the first moments left behind, the same command makes the mirror."""
    chance = random.Random(5)
    for _ in range(kills):
        shutil.rmtree(made.mirror, ignore_errors=True)
        process = run(made.journal, made.mirror)
        while not made.mirror.exists() and process.poll() is None:
            nap(0.0005)
        kill_after(process, chance.uniform(0, 0.01))
        process = run(made.journal, made.mirror)
        kill_after(process, chance.uniform(0.05, 0.2))
        if (made.mirror / "mirror.json").exists():
            assert main(["verify", str(made.mirror), "--quiet"]) in (0, 3)
    assert main(["replay", made.journal.path, str(made.mirror), "--quiet", "--replace-slot"]) == 0
    assert images_of(made.mirror) == made.last
