"""The pages name every field of what --json prints and of the small files, and no other."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal.position import FrameEnd
from mirrortool.journal.unfinished import PromotionNote
from mirrortool.lsn import NO_LSN
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import Kind
from mirrortool.replay.tracing import InlineRun, Post, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.jsonlines import encode
from tests.docs.commands import (
    COMMANDS,
    command_of,
    options_of,
)
from tests.docs.jsonfields import documented, keys_of, printed
from tests.docs.manual import items, page
from tests.docs.workshop import make_image, run
from tests.fakes.live import LiveRecorder
from tests.record.importers.logs import MARK, Logged, log_bytes


@pytest.mark.usefixtures("at_place")
def test_fields_of_record() -> None:
    assert printed("record", "journal") == documented(page("mirrortool-record").sub_part("JSON of a scan"))


@pytest.fixture
def recorded_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveRecorder]:
    """A live recording of tmp_path/journal, which is the current directory's."""
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")
    with LiveRecorder(tmp_path / "journal", "--json") as live:
        yield live


def test_fields_of_a_live_recording(recorded_live: LiveRecorder) -> None:
    assert set(keys_of(json.loads(recorded_live.stop()))) == documented(
        page("mirrortool-record").sub_part("JSON of a live recording")
    )


@pytest.mark.usefixtures("recorded_live")
def test_fields_of_control_sock() -> None:
    requests: list[dict[str, object]] = [{"request": "mark", "name": "m"}, {"request": "status"}, {"request": "x"}]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect("journal/control.sock")
        client.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
        with client.makefile() as answers:
            mark, status, refused = (json.loads(answers.readline()) for _ in requests)
    described = {field for field, _ in items(page("mirrortool-status").sub_part("JSON"))}
    assert set(status) <= {name for field in described for name in field.removeprefix("Va ").split(" , ")}
    text = page("mirrortool-journal", 5).part("CONTROL SOCKET")
    known = {match[1] for line in text if (match := re.match(r"\.Va (\w+)", line))}
    assert {"request", "recorder", "name", *mark, *refused} == known


@pytest.mark.usefixtures("at_place")
def test_fields_of_replay(tmp_path: Path) -> None:
    mirror, trace = str(tmp_path / "mirror"), tmp_path / "trace"
    manual = page("mirrortool-replay")
    assert printed("replay", "journal", mirror, "--trace", str(trace)) == documented(manual.sub_part("JSON"))
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    inline = InlineRun(0, NO_LSN, Kind.ZERO, 0, 1, 0, 0)
    waited = UnitRun(0, NO_LSN, 0, 0, ((0, 1),), 0, 0, 0, How.COUNTER_WAIT, posts=(Post(1, 0),))
    lines += [json.loads(encode(record)) for record in (inline, waited)]
    assert len(lines) > 2 and set(keys_of(lines)) == documented(manual.sub_part("Trace"))


@pytest.mark.usefixtures("at_place")
def test_fields_of_a_dry_run(tmp_path: Path) -> None:
    found = printed("replay", "journal", str(tmp_path / "mirror"), "--dry-run")
    assert found == documented(page("mirrortool-replay").sub_part("JSON of a dry run"))
    assert not (tmp_path / "mirror").exists()


def test_fields_of_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")
    run("replay", "journal", "mirror", "-q")
    assert printed("base", "journal") == documented(page("mirrortool-base").sub_part("JSON"))
    assert printed("prune", "journal", "--keep", "1d") == documented(page("mirrortool-prune").sub_part("JSON"))
    assert printed("slot", "list", "journal") == documented(page("mirrortool-slot").sub_part("JSON"))


@pytest.mark.usefixtures("at_place")
def test_fields_of_backings(tmp_path: Path) -> None:
    mirror = str(tmp_path / "mirror")
    run("replay", "journal", mirror, "-q", "--back", f"{tmp_path}/b0:64M", "--back", f"{tmp_path}/b1:64M")
    found = printed("backing", "list", mirror) | printed("backing", "add", mirror, f"{tmp_path}/b2:9M")
    found |= printed("backing", "drain", mirror, f"{tmp_path}/b1") | printed(
        "backing", "remove", mirror, f"{tmp_path}/b1"
    )
    assert found == documented(page("mirrortool-backing").sub_part("JSON"))


@pytest.mark.usefixtures("at_place")
def test_fields_of_verify(tmp_path: Path) -> None:
    run("replay", "journal", str(tmp_path / "mirror"), "-q")
    with (tmp_path / "mirror/volumes/disk.img").open("r+b") as file:
        file.seek(1 << 19)
        file.write(b"rot")
    manual = page("mirrortool-verify")
    assert printed("verify", str(tmp_path / "mirror"), expected=1) == documented(manual.sub_part("JSON of a mirror"))
    assert printed("verify", "journal") == documented(manual.sub_part("JSON of a journal"))


@pytest.fixture
def promoted(place: Path, tmp_path: Path) -> Path:
    """A mirror that was promoted, with a copy of the journal."""
    copy, mirror = tmp_path / "received", tmp_path / "promoted"
    copy.mkdir()
    shutil.copy(place / "journal/journal.json", copy)
    shutil.copytree(place / "journal/files", copy / "files")
    run("replay", str(copy), str(mirror), "-q")
    run("promote", str(mirror), "--yes", "-q")
    return mirror


@pytest.mark.usefixtures("at_place")
def test_fields_of_status(recorded_live: LiveRecorder, place: Path, promoted: Path) -> None:
    paths = str(recorded_live.journal), str(place / "elsewhere"), str(promoted), "nothing"
    found = printed("status", *paths, expected=14)
    assert found == documented(page("mirrortool-status").sub_part("JSON"))


def test_fields_of_promote(place: Path, promoted: Path, tmp_path: Path) -> None:
    run("replay", str(place / "journal"), str(tmp_path / "mirror"), "-q")
    found = printed("promote", str(tmp_path / "mirror"), "--dry-run") | printed("promote", str(promoted))
    assert found == documented(page("mirrortool-promote").sub_part("JSON"))


def test_fields_of_promoting_json(promoted: Path) -> None:
    mirror = Mirror(str(promoted))
    assert mirror.promoted is not None
    end = FrameEnd(mirror.checkpoint.position, 1, 128)
    note = PromotionNote(mirror.path, mirror.uuid, end, mirror.promoted.epoch, 1)
    known = documented(page("mirrortool-journal", 5).lines)
    known |= {match[1] for line in page("mirrortool-journal", 5).lines if (match := re.match(r"\.Va (\w+)", line))}
    assert set(keys_of(note.to_json())) <= known


@pytest.mark.usefixtures("at_place")
def test_fields_of_ship(tmp_path: Path) -> None:
    assert printed("ship", "journal", str(tmp_path / "copy"), "--no-slot") == documented(
        page("mirrortool-ship").sub_part("JSON")
    )


def test_fields_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("init", "journal", "disk=disk.img:1M")
    Path("log").write_bytes(log_bytes([Logged(flags=MARK, text=b"no name")]))
    assert printed("import", "journal", "log", "--format", "logwrites") == documented(
        page("mirrortool-import").sub_part("JSON")
    )


@pytest.mark.usefixtures("at_place")
def test_fields_of_log() -> None:
    manual = page("mirrortool-log")
    assert printed("log", "journal") == documented(manual.sub_part("JSON"))
    assert printed("log", "journal", "--all") < documented(manual.sub_part("JSON"))
    assert printed("log", "journal", "--ops") == documented(manual.sub_part("JSON of operations"))


def test_every_json_option_has_fields() -> None:
    for name in COMMANDS:
        has_json = "--json" in options_of(command_of(name))
        assert has_json == any(line.startswith(".Ss JSON") for line in page(f"mirrortool-{name}").lines), name


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(
    ("manual", "path"),
    [
        ("mirrortool-journal", "journal/journal.json"),
        ("mirrortool-journal", "journal/local.json"),
        ("mirrortool-journal", "journal/recorder.json"),
        ("mirrortool-mirror", "elsewhere/mirror.json"),
        ("mirrortool-mirror", "elsewhere/checkpoint.json"),
        ("mirrortool-mirror", "elsewhere/last-replay.json"),
    ],
)
def test_fields_of_small_files(manual: str, path: str) -> None:
    text = page(manual, 5).lines
    known = {match[1] for line in text if (match := re.match(r"\.(?:It )?Va (\w+)", line))}
    assert set(keys_of(json.loads(Path(path).read_text()))) - {"disk"} <= known
