"""Exports as volumes of a mirror: which are refused when it is made, and what is compared when one is opened."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mirrortool.errors import (
    ChangedOutsideError,
    MirrortoolError,
    NotAMirrorError,
    ServerError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.newmirror import create
from mirrortool.mirror.openvolumes import open_store
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.ownexports import describe_export
from mirrortool.nbd.protocol import Command, Info
from mirrortool.nbd.server import Server
from mirrortool.nbd.uri import parse_uri
from mirrortool.store.flat import FlatStore
from mirrortool.store.joined import JoinedStore
from mirrortool.store.nbdstore import NbdStore
from mirrortool.volume import place
from tests.fakes.journals import PAGE, Commit, Write, assert_verifies, make_journal, replay_all
from tests.fakes.memory_export import MemoryExport, names
from tests.fakes.nbdservers import nbdkit
from tests.fakes.scriptedserver import CAN, USUAL, Peer, scripted

SIZE = 10 * PAGE + 100
ROOM = 16 * PAGE
A, B = b"a" * PAGE, b"b" * PAGE


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    frames = [[Write("a", 0, A), Write("a", 10, A), Commit()], [Write("b", 1, B), Commit()]]
    return make_journal(tmp_path / "J", {"a": SIZE, "b": 3 * PAGE}, frames)


@pytest.fixture
def export() -> MemoryExport:
    return MemoryExport(ROOM)


@pytest.fixture
def uri(tmp_path: Path, export: MemoryExport) -> Iterator[str]:
    with serving(tmp_path, export) as uri:
        yield uri


@contextmanager
def serving(path: Path, *exports: MemoryExport) -> Iterator[str]:
    """The URI of the first."""
    with Server(list(exports), [f"unix:{path}/s"], on_event=str):
        yield f"nbd+unix:///{exports[0].name}?socket={path}/s"


def test_a_mirror_may_have_one_volume_in_an_export_and_one_in_its_directory(
    tmp_path: Path, journal: Journal, uri: str, export: MemoryExport
) -> None:
    replay_all(journal, tmp_path / "M", targets={"a": uri})
    assert export.data == A + bytes(9 * PAGE) + A[:100] + bytes(ROOM - SIZE)
    assert (tmp_path / "M/volumes/b.img").read_bytes() == bytes(PAGE) + B + bytes(PAGE)
    assert_verifies(tmp_path / "M")
    with closing(open_store(Mirror(str(tmp_path / "M")), write=True)) as store:
        assert isinstance(store, JoinedStore)
    values = json.loads((tmp_path / "M/mirror.json").read_text())
    assert values["format"] == 2
    assert values["volumes"][0] == {"name": "a", "base": 0, "kind": "nbd", "uri": uri, "export": "disk", "size": ROOM}


def test_a_mirror_of_files_alone_stays_of_the_first_format(tmp_path: Path, journal: Journal) -> None:
    create(str(tmp_path / "M"), journal)
    assert json.loads((tmp_path / "M/mirror.json").read_text())["format"] == 1
    with closing(open_store(Mirror(str(tmp_path / "M")), write=True)) as store:
        assert isinstance(store, FlatStore)


def test_an_older_mirrortool_refuses_it_by_its_format(
    tmp_path: Path, journal: Journal, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(str(tmp_path / "M"), journal, {"a": uri})
    monkeypatch.setattr("mirrortool.mirror.directory.MIRROR_FORMAT", 1)
    with pytest.raises(NotAMirrorError, match="is of format 2, and this mirrortool knows formats up to 1"):
        Mirror(str(tmp_path / "M"))


@pytest.mark.parametrize(
    ("name", "value"), [("uri", "nbd://"), ("uri", 1), ("export", None), ("size", -1), ("kind", "tape")]
)
def test_a_field_that_is_not_valid_is_named(
    tmp_path: Path, journal: Journal, uri: str, name: str, value: object
) -> None:
    create(str(tmp_path / "M"), journal, {"a": uri})
    values = json.loads((tmp_path / "M/mirror.json").read_text())
    values["volumes"][0][name] = value
    (tmp_path / "M/mirror.json").write_text(json.dumps(values))
    with pytest.raises(NotAMirrorError, match=f"field '{name}' is missing or not valid"):
        Mirror(str(tmp_path / "M"))


def test_data_is_refused_and_overwritten_only_where_that_is_wanted(
    tmp_path: Path, journal: Journal, uri: str, export: MemoryExport
) -> None:
    for at in (0, SIZE - 1, ROOM - 1):
        export.data[at] = 1
        with pytest.raises(UnusableVolumeError, match="the export holds data; give --overwrite"):
            create(str(tmp_path / "M"), journal, {"a": uri})
        assert export.data[at] == 1
    create(str(tmp_path / "M"), journal, {"a": uri}, overwrite=True)
    assert export.data == bytes(ROOM - 1) + b"\1", "what is after the volume stays"
    assert names(export)[-1] == "flush"


def test_whether_it_reads_as_zeros_is_read_where_the_server_does_not_say(tmp_path: Path, journal: Journal) -> None:
    with nbdkit("--no-sr", "memory", str(ROOM)) as uri:
        create(str(tmp_path / "M"), journal, {"a": uri})
    content = "data= @8191 1", f"size={ROOM}"
    with nbdkit("--no-sr", "data", *content) as uri, pytest.raises(UnusableVolumeError, match="holds data"):
        create(str(tmp_path / "M2"), journal, {"a": uri})


def test_a_container_is_refused_also_where_it_may_be_overwritten(
    tmp_path: Path, journal: Journal, uri: str, export: MemoryExport
) -> None:
    export.data[:4] = b"QFI\xfb"
    with pytest.raises(UnusableVolumeError, match=r"in the format qcow2.*let the server open the image in its format"):
        create(str(tmp_path / "M"), journal, {"a": uri}, overwrite=True)
    create(str(tmp_path / "M"), journal, {"a": uri}, overwrite=True, raw=True)
    assert not any(export.data)


def test_an_export_that_cannot_hold_the_volume_is_refused(tmp_path: Path, journal: Journal) -> None:
    target = str(tmp_path / "M")
    with serving(tmp_path, MemoryExport(SIZE - 1)) as uri, pytest.raises(UnusableVolumeError, match="use a larger one"):
        create(target, journal, {"a": uri})
    fixed = MemoryExport(ROOM, read_only=True)
    with serving(tmp_path, fixed) as uri, pytest.raises(UnusableVolumeError, match="lets it only be read"):
        create(target, journal, {"a": uri})
    own = MemoryExport(ROOM, description=describe_export(journal.uuid, "b", "at LSN 1"))
    with (
        serving(tmp_path, own) as uri,
        pytest.raises(UnusableVolumeError, match=r"is the primary's own: .*volume b"),
    ):
        create(target, journal, {"a": uri}, overwrite=True)
    blocks = struct.pack(">HIII", Info.BLOCK_SIZE, 4096, 4096, 1 << 20)
    for flags, infos, text in [
        (USUAL & ~CAN.SEND_FLUSH, (), "has no FLUSH"),
        (0, (), "has no FLUSH"),
        (USUAL, (blocks,), "takes blocks of 4096 bytes, and the journal's pages have 512 bytes; .*blocksize"),
    ]:

        def script(peer: Peer, flags: int = flags, infos: tuple[bytes, ...] = infos) -> None:
            peer.handshake(ROOM, flags, infos=infos)
            peer.wait_for_end()

        with scripted(tmp_path, script) as uri, pytest.raises(UnusableVolumeError, match=text):
            create(target, journal, {"a": uri})
    assert not (tmp_path / "M/mirror.json").exists()


def test_targets_that_cannot_be_are_refused_before_anything_is_made(tmp_path: Path, journal: Journal, uri: str) -> None:
    target = str(tmp_path / "M")
    with pytest.raises(UnusableVolumeError, match="volumes a and b would share one export"):
        create(target, journal, {"a": uri, "b": uri.replace("disk", "%64isk")})
    with pytest.raises(UsageError, match="not an NBD URI"):
        create(target, journal, {"a": "nbd+unix:///disk"})
    assert not (tmp_path / "M").exists()
    with pytest.raises(ServerError, match="cannot be reached"):
        create(target, journal, {"a": uri.replace("/s", "/none")})


@pytest.fixture
def made(tmp_path: Path, journal: Journal) -> str:
    """A mirror of which a is in an export that nobody serves just now."""
    with serving(tmp_path, MemoryExport(ROOM)) as uri:
        replay_all(journal, tmp_path / "M", targets={"a": uri})
    return str(tmp_path / "M")


@pytest.mark.parametrize(
    ("export", "error", "text"),
    [
        (MemoryExport(ROOM + 1), ChangedOutsideError, r"the export has 8.0 KiB \(8193 bytes\), and had 8.0 KiB when"),
        (MemoryExport(ROOM - 1), ChangedOutsideError, "if it was resized, make a new mirror"),
        (MemoryExport(ROOM, read_only=True), UnusableVolumeError, "lets it only be read"),
        (MemoryExport(ROOM), ChangedOutsideError, "is not as the last replay left it"),
        (MemoryExport(ROOM, "other"), UnusableVolumeError, "has no export 'disk'"),
    ],
)
def test_another_export_than_the_mirror_was_made_on_is_refused(
    tmp_path: Path, journal: Journal, made: str, export: MemoryExport, error: type[MirrortoolError], text: str
) -> None:
    with serving(tmp_path, export, MemoryExport(ROOM, "third")), pytest.raises(error, match=text):
        replay_all(journal, made)
    assert not any(name in ("change", "cache") for name in names(export))


def test_an_export_of_another_name_is_refused_where_the_server_has_one_only(tmp_path: Path, journal: Journal) -> None:
    with serving(tmp_path, MemoryExport(ROOM)) as uri:
        replay_all(journal, tmp_path / "M", targets={"a": uri.replace("disk", "")})
    other = MemoryExport(ROOM, "other")
    with serving(tmp_path, other), pytest.raises(ChangedOutsideError, match="calls the export 'other', and it was 'd"):
        replay_all(journal, tmp_path / "M")


def test_an_export_that_became_the_primarys_own_is_refused(tmp_path: Path, journal: Journal, made: str) -> None:
    own = MemoryExport(ROOM, description=describe_export(journal.uuid, "a"))
    with serving(tmp_path, own), pytest.raises(UnusableVolumeError, match="this is the primary's own"):
        replay_all(journal, made)


def test_what_may_only_be_read_can_be_verified(tmp_path: Path, made: str) -> None:
    seen: list[int] = []

    def script(peer: Peer) -> None:
        peer.handshake(ROOM, CAN.HAS_FLAGS | CAN.READ_ONLY, structured=False, infos=(b"\0\1disk",))
        while True:
            asked = peer.request()
            seen.append(asked.command)
            peer.succeed(asked.cookie)
            if asked.command == Command.READ:
                content = A + bytes(9 * PAGE) + A[:100] + bytes(ROOM)
                peer.send(content[asked.offset : asked.offset + asked.length])

    with scripted(tmp_path, script) as uri:
        values = json.loads(Path(made, "mirror.json").read_text())
        values["volumes"][0]["uri"] = uri
        Path(made, "mirror.json").write_text(json.dumps(values))
        assert_verifies(made)
    assert set(seen) == {Command.READ, Command.DISC}


def test_what_a_store_of_exports_says_of_itself(uri: str) -> None:
    volumes = place([("a", SIZE)], PAGE)
    with closing(NbdStore(volumes, {"a": NbdClient(parse_uri(uri), write=True)})) as store:
        assert store.capacity("a") == ROOM
        assert "NBD" in (store.find_why_not_direct() or "")
