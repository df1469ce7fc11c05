"""Clients of a state that is served: they read it; what they write goes to a scratch file that keeps to its place."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import UnusableVolumeError, UsageError
from mirrortool.nbd.protocol import Command
from mirrortool.nbd.server import Server
from mirrortool.serve import serving as module
from mirrortool.serve.scratch import Scratch
from mirrortool.serve.serving import Serving, open_scratch
from mirrortool.serve.state import ShownState, open_state
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.journals import PAGE, Commit, Write, make_journal, memory_directory, replay_all
from tests.fakes.waiting import PATIENCE_SECONDS
from tests.nbd.wire import Client

PAGES = 16


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


@pytest.fixture
def state(place: Path) -> Iterator[ShownState]:
    frames = [[Write("a", 0, b"x" * PAGE * PAGES), Write("b", 0, b"z" * PAGE)], [Commit()]]
    replay_all(make_journal(place / "J", {"a": PAGES * PAGE, "b": PAGE}, frames), place / "M")
    with open_state(str(place / "M")) as opened:
        yield opened


@contextmanager
def serving(state: ShownState, scratch: Scratch | None, place: Path, events: list[str]) -> Iterator[Serving]:
    ready = threading.Event()
    make_server = partial(Server, addresses=[f"unix:{place}/s"], on_event=events.append)

    def on_ready(addresses: Sequence[str]) -> None:
        assert list(addresses) == [f"unix:{place}/s"]
        ready.set()

    made = Serving(state, scratch, make_server, on_ready)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        yield made
    finally:
        made.stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def get(client: Client, offset: int, length: int) -> bytes:
    assert client.do(Command.READ, offset, length).error == 0
    return client.receive(length)


def test_clients_read_every_volume_and_cannot_write(state: ShownState, place: Path) -> None:
    events: list[str] = []
    with serving(state, None, place, events) as served:
        for name, letter, size in (("a", b"x", PAGES * PAGE), ("b", b"z", PAGE)):
            with Client(UnixAddress(f"{place}/s")) as client:
                assert client.go(name)[0] == size
                assert get(client, 0, size) == letter * size
                assert client.do(Command.WRITE, 0, 3, data=b"new").error == errno.EPERM
                assert client.do(Command.TRIM, 0, PAGE).error == errno.EPERM
        assert sum(export.bytes_read for export in served.statistics().exports) == (PAGES + 1) * PAGE
    assert events == []


def test_what_is_written_is_read_by_all_and_not_in_the_mirror(state: ShownState, place: Path) -> None:
    before = (place / "M/volumes/a.img").read_bytes()
    scratch = open_scratch(state, str(place), 4 * PAGE, is_named=True)
    events: list[str] = []
    with (
        serving(state, scratch, place, events),
        Client(UnixAddress(f"{place}/s")) as one,
        Client(UnixAddress(f"{place}/s")) as other,
    ):
        one.go("a")
        other.go("a")
        assert one.do(Command.WRITE, 5, 3, data=b"new").error == 0
        assert one.do(Command.FLUSH).error == 0
        assert get(other, 0, 10) == b"xxxxxnewxx"
        assert one.do(Command.WRITE, 0, 5 * PAGE, data=b"y" * 5 * PAGE).error == errno.ENOSPC
        assert one.do(Command.WRITE_ZEROES, 0, 2 * PAGE).error == 0
        assert get(other, PAGE, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE
    assert (place / "M/volumes/a.img").read_bytes() == before
    assert len(events) == 1 and "--scratch-size" in events[0]


def test_a_page_that_was_changed_outside_is_an_error_for_the_client_and_a_line(state: ShownState, place: Path) -> None:
    with open(place / "M/volumes/a.img", "r+b") as image:
        image.write(b"!")
    events: list[str] = []
    with serving(state, None, place, events), Client(UnixAddress(f"{place}/s")) as client:
        client.go("a")
        assert client.do(Command.READ, 0, 10).error == errno.EIO
        assert get(client, PAGE, 10) == b"x" * 10
    assert len(events) == 1 and "page 0 of volume a does not have its sum" in events[0]


def test_a_scratch_is_not_put_beside_what_is_shown_unless_its_place_was_named(state: ShownState, place: Path) -> None:
    with pytest.raises(UsageError, match=rf"the file system of .*{place}/M; .*--scratch {place}"):
        open_scratch(state, str(place), PAGE, is_named=False)
    open_scratch(state, str(place), PAGE, is_named=True).close()


def test_a_scratch_elsewhere_may_have_half_of_what_is_free(
    state: ShownState, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[str], files.Facts | None] = files.find_facts

    def find_facts(path: str) -> files.Facts | None:
        """The scratch's directory is of another device."""
        facts = real(path)
        if facts and path == str(place):
            identity = files.Identity(facts.identity.device + 1, facts.identity.inode, False)
            return files.Facts(identity, facts.size, facts.allocated, facts.modified_ns, facts.changed_ns, facts.kind)
        return facts

    monkeypatch.setattr(module.files, "find_facts", find_facts)
    monkeypatch.setattr(module.files, "free_bytes", lambda _: 20 * PAGE)
    scratch = open_scratch(state, str(place), None, is_named=False)
    assert scratch.bytes_max == 10 * PAGE
    scratch.close()


def test_no_replay_of_the_same_journal_writes_into_what_is_shown(place: Path, state: ShownState) -> None:
    """Not into the scratch of a writable one either, whatever name it is reached by."""
    with (
        closing(open_scratch(state, str(place), 1 << 20, is_named=True)) as scratch,
        serving(state, scratch, place, []),
        pytest.raises(UnusableVolumeError, match="the primary's own"),
    ):
        replay_all(str(place / "J"), place / "other", targets={"a": f"nbd+unix:///a?socket={place}/s"})
