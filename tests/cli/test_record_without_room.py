"""A live recording whose journal has no room: clients are refused or served without it, over stops and kills."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.errors import NoSpaceError
from mirrortool.nbd.protocol import Command, CommandFlag
from mirrortool.record.controlsocket import ask
from tests.cli.liveclients import client_of, get, put
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fill_up, loop_mount
from tests.fakes.waiting import wait_until
from tests.interop.tool import Site, site_of_a_disk
from tests.nbd.wire import Client

MIB = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_of_a_disk(tmp_path, 8 * MIB)


@contextlib.contextmanager
def journal_on_a_small_disk(site: Site) -> Iterator[Path]:
    """The journal's own file system of 192 MiB; volume and mirror are elsewhere."""
    shutil.rmtree(site.journal)
    with loop_mount(site.path, 192 * MIB) as place:
        site.journal = Path(place) / "journal"
        site.init(f"disk={site.path}/disk.img")
        yield Path(place)


def serve(site: Site, *options: object) -> LiveRecorder:
    """With its socket where there is always room."""
    live = LiveRecorder(site.journal, *options, address=f"unix:{site.path}/s")
    live.socket = site.path / "s"
    return live


DETACH = ("--when-full", "detach", "--reserve", "1M")


def detach(live: LiveRecorder, client: Client, place: Path) -> bytes:
    """Fill the journal's disk and write 6 MiB durably; what was written."""
    live.wait_for_base()
    fill_up(str(place), leave=MIB // 2)
    data = random.Random(2).randbytes(6 * MIB)
    for at in range(0, len(data), MIB):
        assert put(client, at, data[at : at + MIB], CommandFlag.FUA) == 0, live.lines
    live.wait_for("no room")
    return data


def wait_until_attached(site: Site) -> None:
    wait_until(
        lambda: not (ask(str(site.journal), {"request": "status"}) or {})["problem"],
        told=lambda: ask(str(site.journal), {"request": "status"}),
    )


def test_full_journal_refuses_writes_until_there_is_room(site: Site) -> None:
    chance = random.Random(1)
    written = {}
    with journal_on_a_small_disk(site) as place:
        with serve(site) as live, client_of(live) as client:
            live.wait_for_base()
            assert put(client, 0, b"before", CommandFlag.FUA) == 0
            fill_up(str(place), leave=MIB)
            errors = []
            for number in range(1, 5):
                data = chance.randbytes(MIB)
                errors.append(put(client, number * MIB, data))
                if not errors[-1]:
                    written[number] = data
            assert errno.ENOSPC in errors and set(errors) <= {0, errno.ENOSPC}
            assert get(client, 0, 6) == b"before"
            full = json.loads(site.run("status", site.journal, "--json", code=NoSpaceError.exit_code))
            assert "clients get ENOSPC" in full["recorder"]["problem"]
            os.unlink(place / "filler")
            assert put(client, 7 * MIB, b"after" * (MIB // 5)) == 0
            assert site.run("status", site.journal)
            assert client.do(Command.FLUSH).error == 0
            assert get(client, 7 * MIB, 5) == b"after"
            for number, data in written.items():
                assert get(client, number * MIB, MIB) == data
        site.prove()


def test_full_journal_stays_full_over_a_clean_stop(site: Site) -> None:
    """Stopped and started while there is no room: nothing is lost, and nothing is refused for good."""
    with journal_on_a_small_disk(site) as place:
        live = serve(site)
        live.start()
        with client_of(live) as client:
            live.wait_for_base()
            fill_up(str(place), leave=MIB)
            number = 0
            while put(client, number * MIB % (8 * MIB), random.Random(number).randbytes(MIB)) == 0:
                number += 1
        live.process.terminate()
        live.process.wait(60)
        assert live.process.returncode in (0, 30), live.lines
        os.unlink(place / "filler")
        with serve(site) as live, client_of(live) as client:
            for each in range(number):
                assert get(client, each * MIB, MIB) == random.Random(each).randbytes(MIB)
        site.prove()


def test_full_journal_detaches_and_comes_back(site: Site) -> None:
    with journal_on_a_small_disk(site) as place:
        with serve(site, *DETACH) as live, client_of(live) as client:
            data = detach(live, client, place)
            site.run("mark", site.journal, "never", code=3)
            assert (site.path / "disk.img").read_bytes()[: len(data)] == data
            os.unlink(place / "filler")
            wait_until_attached(site)
            assert put(client, 7 * MIB, b"after") == 0
            assert get(client, 0, MIB) == data[:MIB]
            site.run("mark", site.journal, "again")
        site.prove()


def test_detached_over_a_clean_stop(site: Site) -> None:
    with journal_on_a_small_disk(site) as place:
        live = serve(site, *DETACH)
        live.start()
        with client_of(live) as client:
            data = detach(live, client, place)
        live.process.terminate()
        live.process.wait(60)
        assert live.process.returncode in (0, 30), live.lines
        assert (site.path / "disk.img").read_bytes()[: len(data)] == data
        with serve(site, *DETACH) as live, client_of(live) as client:
            assert get(client, 0, MIB) == data[:MIB]
            assert put(client, 0, b"more") == 0
            os.unlink(place / "filler")
            wait_until_attached(site)
            assert get(client, 0, MIB) == b"more" + data[4:MIB]
        site.prove()


def test_killed_while_detached(site: Site) -> None:
    """What went past the journal is on the volume, and in the journal once there is room."""
    with journal_on_a_small_disk(site) as place:
        live = serve(site, *DETACH)
        live.start()
        with client_of(live) as client:
            data = detach(live, client, place)
        live.kill()
        assert (site.path / "disk.img").read_bytes()[: len(data)] == data
        os.unlink(place / "filler")
        with live:
            with client_of(live) as client:
                assert get(client, 0, len(data)) == data
                assert put(client, 5, b"after") == 0
            wait_until_attached(site)
        site.prove()
