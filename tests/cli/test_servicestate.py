"""A recorder tells its service manager and Prometheus how it stands: as a process, with a real socket and file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from mirrortool.nbd.protocol import Command
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.daemon import Daemon
from tests.fakes.exposition import parsed
from tests.fakes.live import LiveRecorder
from tests.fakes.served import Served
from tests.fakes.servicemanager import Manager
from tests.interop.tool import Site, site_of_a_disk
from tests.nbd.wire import Client

MIB = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_of_a_disk(tmp_path, MIB)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    listening = Manager(str(tmp_path / "notify"))
    yield listening
    listening.close()


def values(path: Path) -> dict[str, float]:
    """By name, of the only journal and volume."""
    return {name.removeprefix("mirrortool_record_"): value for (name, _), value in parsed(path.read_text()).items()}


def test_a_live_recording_is_told_from_start_to_end(site: Site, manager: Manager) -> None:
    metrics = site.path / "m.prom"
    with LiveRecorder(site.journal, "--metrics-file", metrics) as live:
        assert [text.split("\n")[0] for text in manager.wait()] == ["READY=1"]
        live.wait_for_base()
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("disk")
            assert client.do(Command.WRITE, 0, MIB // 2, 0, os.urandom(MIB // 2)).error == 0
            assert client.do(Command.FLUSH).error == 0
        live.stop()
    assert manager.heard()[-1].startswith("STOPPING=1")
    last = values(metrics)
    expected = {"serving": 0, "problem": 0, "clients": 0, "writes_total": 1, "flushes_total": 1, "waiting_bytes": 0}
    expected |= {"written_bytes_total": MIB // 2, "incomplete_volumes": 0, "errors_total": 0}
    assert expected.items() <= last.items()
    assert last["head_lsn"] == last["commit_lsn"] == last["durable_lsn"] == last["checkpoint_lsn"]
    assert last["base_pages"] == last["base_read_pages"] == MIB // 4096
    assert last["journaled_bytes_total"] > MIB // 2


def test_a_failed_recorder_does_not_serve(site: Site) -> None:
    metrics = site.path / "m.prom"
    (site.path / "s").write_text("no socket")
    live = LiveRecorder(site.journal, "--metrics-file", metrics)
    live.begin()
    live.wait(2)
    assert values(metrics)["serving"] == 0


def test_metrics_that_cannot_be_written_do_not_matter(site: Site) -> None:
    with LiveRecorder(site.journal, "--metrics-file", site.path / "nothing" / "m.prom") as live:
        live.wait_for_base()
    assert sum("metrics are not written" in line for line in live.lines) == 1
    site.prove()


def test_a_repeated_scan_is_told(site: Site, manager: Manager) -> None:
    metrics = site.path / "m.prom"
    command = [sys.executable, "-m", "mirrortool", "record", site.journal, "--every", "1h", "--metrics-file", metrics]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("commit ")
        assert manager.heard()[0].startswith("READY=1\nSTATUS=scanning ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert manager.heard()[-1].startswith("STOPPING=1")
    assert {"scans_total": 1, "fuzzy_scans_total": 0, "failed_scans_total": 0}.items() <= values(metrics).items()


def test_a_single_scan_leaves_its_metrics(site: Site) -> None:
    metrics = site.path / "m.prom"
    assert main(["record", str(site.journal), "--metrics-file", str(metrics), "-q"]) == 0
    found = values(metrics)
    assert found["scans_total"] == 1 and found["commit_lsn"] > 0
    assert main(["record", str(site.journal), "--metrics-file", str(metrics), "-q", "--before", "false"]) == 34
    assert values(metrics)["failed_scans_total"] == 1 and values(metrics)["scans_total"] == 0
    assert main(["record", str(site.journal), "--metrics-file", str(metrics), "-q", "--after", "false"]) == 34
    assert values(metrics)["failed_scans_total"] == 0 and values(metrics)["scans_total"] == 1


def test_a_follower_is_told_from_waiting_for_its_journal_to_the_end(site: Site, manager: Manager) -> None:
    metrics = site.path / "m.prom"
    site.run("record", site.journal, "--quiet")
    manager.heard()
    follower = Daemon("replay", site.path / "later", site.mirror, "--follow", "--metrics-file", metrics)
    follower.start()
    assert manager.wait()[0].startswith("READY=1\nSTATUS=waiting for a journal")
    site.journal.rename(site.path / "later")
    told = manager.wait()
    assert told[0].startswith("READY=1\nSTATUS=replaying"), told
    follower.wait_until(lambda: Mirror(str(site.mirror)).checkpoint.position.lsn > 0)
    follower.stop()
    assert manager.heard()[-1].startswith("STOPPING=1")
    last = {name.removeprefix("mirrortool_replay_"): value for (name, _), value in parsed(metrics.read_text()).items()}
    assert (last["following"], last["consistent"], last["lag_operations"]) == (0, 1, 0)
    assert last["applied_lsn"] == last["head_lsn"] > 0


def test_what_serves_a_commit_is_told_when_clients_can_come(site: Site, manager: Manager) -> None:
    site.run("record", site.journal, "--quiet")
    manager.heard()
    with Served(site.journal, site.path / "s") as served:
        (ready,) = manager.wait()
        assert ready.startswith("READY=1\nSTATUS=serving disk as of LSN ")
        with Client(UnixAddress(str(served.socket))) as client:
            client.go("disk")
    assert manager.heard()[-1].startswith("STOPPING=1")


def test_a_shipment_is_told_from_its_start_though_its_destination_is_away(site: Site, manager: Manager) -> None:
    site.run("record", site.journal, "--quiet")
    manager.heard()
    metrics, here, away = site.path / "m.prom", site.path / "here", "nobody@host:J"
    command = [site.journal, here, away, "--follow", "--rsh", "false", "--metrics-file", metrics]
    shipping = Daemon("ship", *command)
    shipping.start()
    assert manager.wait()[0].startswith("READY=1\nSTATUS=shipping")

    def told(destination: object) -> dict[str, float]:
        found = parsed(metrics.read_text()) if metrics.exists() else {}
        return {
            name.removeprefix("mirrortool_ship_"): value
            for (name, labels), value in found.items()
            if dict(labels)["destination"] == str(destination)
        }

    shipping.wait_until(lambda: told(here).get("lag_operations") == 0 and told(here)["connected"] == 1)
    found = told(here)
    assert found["acknowledged_lsn"] == found["head_lsn"] > 0
    assert (found["lag_bytes"], found["lag_seconds"], found["connects_total"]) == (0, 0, 1)
    assert found["sent_bytes_total"] == sum(each.stat().st_size for each in (here / "files").iterdir())
    lost = told(away)
    assert (lost["connected"], lost["connects_total"], lost["sent_bytes_total"]) == (0, 0, 0)
    assert lost["head_lsn"] == found["head_lsn"] and "lag_operations" not in lost and "acknowledged_lsn" not in lost
    shipping.stop()
    last = manager.heard()
    assert last[-1].startswith("STOPPING=1")
    assert told(here)["connected"] == 0
