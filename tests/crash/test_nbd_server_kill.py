"""A mirror in an export whose server is killed, at every request, with what was not flushed mostly lost.

At each durable checkpoint the server durably has what the model has; what lies between the checkpoint and what it may
have reached is of some LSN between them, page by page; and the next attempt brings it right. A late write of a
connection that is gone is found, or cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.change import Change
from mirrortool.errors import ChangedOutsideError, InputOutputError, ServerError
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror.directory import Mirror
from mirrortool.nbd import client as client_module
from mirrortool.nbd import clientconnection
from mirrortool.nbd.server import Server
from mirrortool.replay import delegator
from mirrortool.replay.engine import Plan
from mirrortool.replay.session import Replay
from tests.fakes.forgetfulexport import ForgetfulExport
from tests.fakes.histories import SIZES, make_history
from tests.fakes.journals import (
    ONE_TASK,
    PAGE,
    Commit,
    JournalMaker,
    Write,
    assert_verifies,
    memory_directory,
    replay_all,
    shrink_pieces,
    verified,
)
from tests.fakes.memory_export import Gate, MemoryExport
from tests.fakes.serial import apply

ROOM = 90 * PAGE
"""Of each export: no history makes a volume larger."""
MANY_TASKS = Plan(groups=2, tasks=2, unit="op")


@dataclass
class Site:
    """A journal, a mirror of it, and the exports that the mirror is in.

    Attributes:
        states: each volume after each LSN.
    """

    journal: Journal
    mirror: str
    exports: Mapping[str, ForgetfulExport]
    targets: Mapping[str, str]
    states: list[dict[str, bytes]]

    def attempt(self, plan: Plan) -> bool:
        """Replay to the end; whether it got there."""
        try:
            with Replay(self.journal.path, self.mirror, plan=plan, targets=self.targets, window_bytes=3000) as replay:
                replay.run()
        except ServerError:
            return False
        return True

    def check(self) -> None:
        """What the servers durably have is what the mirror's checkpoint says."""
        if not Path(self.mirror, "mirror.json").exists():
            return
        checkpoint = Mirror(self.mirror).checkpoint
        lsn = checkpoint.position.lsn
        states = self.states[lsn : max(lsn, checkpoint.reached_lsn) + 1]
        for name, export in self.exports.items():
            for start in range(0, ROOM, PAGE):
                page = bytes(export.durable[start : start + PAGE])
                known = {state[name][start : start + PAGE].ljust(PAGE, b"\0") for state in states}
                assert page in known, f"volume {name}, page {start // PAGE}, at LSN {lsn}"


@contextmanager
def site(seed: int, frames: int) -> Iterator[Site]:
    with memory_directory() as path:
        journal = make_history(path / "J", seed, frames).journal
        with mirrored(journal, states_of(journal), path / "M", seed) as each:
            yield each


@contextmanager
def mirrored(journal: Journal, states: list[dict[str, bytes]], mirror: Path, seed: int) -> Iterator[Site]:
    """New exports, for a mirror that is not there yet."""
    exports = {name: ForgetfulExport(ROOM, name, seed=seed) for name in SIZES}
    with Server(list(exports.values()), [f"unix:{mirror}.s"], on_event=str):
        targets = {name: f"nbd+unix:///{name}?socket={mirror}.s" for name in exports}
        yield Site(journal, str(mirror), exports, targets, states)


def states_of(journal: Journal) -> list[dict[str, bytes]]:
    """Of each LSN, as serial replay makes them."""
    places = {volume.name: volume.start // PAGE for volume in journal.volumes}
    contents = {volume.name: bytearray(volume.size) for volume in journal.volumes}
    states = [{name: bytes(content) for name, content in contents.items()}]
    with JournalReader(journal, journal.start) as reader:
        while frame := reader.next_frame():
            for operation in frame.batch.operations(frame.header.first_lsn):
                apply(operation, places, contents, PAGE)
                states.append({name: bytes(content) for name, content in contents.items()})
    return states


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after each window; and a killed server is noticed without waiting for what it will not answer."""
    monkeypatch.setattr(delegator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(client_module, "CONNECTIONS", 2)
    shrink_pieces(monkeypatch)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("plan", [ONE_TASK, MANY_TASKS], ids=["one task", "four tasks"])
def test_a_server_killed_at_every_request_leaves_what_the_checkpoint_says(plan: Plan) -> None:
    killed = requests = 0
    with memory_directory() as path:
        journal = make_history(path / "J", seed=3, frames=6 if plan is ONE_TASK else 4).journal
        states, is_over = states_of(journal), False
        while not is_over:
            with mirrored(journal, states, path / f"M{requests}", requests) as each:
                each.exports["ab"[requests % 2]].kill_after(requests // 2)
                is_over = each.attempt(plan)
                if not is_over:
                    each.check()
                    killed += 1
                    assert each.attempt(plan)
                each.exports["ab"[requests % 2]].kill_after(-1)
                each.check()
                assert_verifies(each.mirror)
            requests += 1
    assert killed > 10


@pytest.mark.usefixtures("quick")
@settings(max_examples=7)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 60)), min_size=1, max_size=8),
    st.sampled_from([ONE_TASK, MANY_TASKS]),
)
def test_a_server_killed_again_and_again(seed: int, kills: list[tuple[str, int]], plan: Plan) -> None:
    with site(seed, frames=40) as each:
        for name, requests in kills:
            each.exports[name].kill_after(requests)
            each.attempt(plan)
            each.check()
        for export in each.exports.values():
            export.kill_after(-1)
        assert each.attempt(plan)
        each.check()
        assert_verifies(each.mirror)
        assert {name: bytes(each.exports[name].data[: len(state)]) for name, state in each.states[-1].items()} == (
            each.states[-1]
        )


@contextmanager
def growing(export: MemoryExport) -> Iterator[tuple[JournalMaker, str, dict[str, str]]]:
    """A journal of one page that is still written, a mirror's path, and where its volume is to be."""
    with memory_directory() as path, Server([export], [f"unix:{path}/s"], on_event=str):
        maker = JournalMaker(path / "J", {"a": 8 * PAGE})
        maker.frame(Write("a", 0, b"1" * PAGE), Commit())
        yield maker, str(path / "M"), {"a": f"nbd+unix:///disk?socket={path}/s"}
        maker.abandon()


def test_a_late_write_of_a_connection_that_is_open_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is slow, not dead: nothing is written beside what it may still write."""
    monkeypatch.setattr(clientconnection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(clientconnection, "OVER_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "OVER_SECONDS", 0.1)
    export = MemoryExport(8 * PAGE)
    gate = Gate(export, "change")
    with growing(export) as (maker, mirror, targets):
        with pytest.raises(ServerError, match="does not answer"):
            replay_all(maker.journal, mirror, targets=targets)
        maker.frame(Write("a", 0, b"2" * PAGE), Commit())
        with pytest.raises(ServerError, match="may still carry out 1 of its requests"):
            replay_all(maker.journal, mirror)
        assert not any(export.data)
        gate.open()
        monkeypatch.setattr(client_module, "OVER_SECONDS", 30.0)
        assert replay_all(maker.journal, mirror).is_consistent
        assert export.data[:PAGE] == b"2" * PAGE
        assert_verifies(mirror)


class LateExport(MemoryExport):
    """Its server ends the connection of the first change without an answer, and carries it out later all the same.

    Attributes:
        late: that change, until `carry_out`.
    """

    def __init__(self, when: str) -> None:
        super().__init__(8 * PAGE)
        self.late: list[Change] = []
        self._when = when
        self._has_failed = False

    def change(self, changes: object) -> None:
        if not self._has_failed:
            self._has_failed = True
            self.late = list(changes)  # type: ignore[call-overload]
            raise ConnectionAbortedError
        super().change(changes)  # type: ignore[arg-type]

    def flush(self) -> None:
        super().flush()
        if self._when == "before the read-back":
            self.carry_out()

    def carry_out(self) -> None:
        if self._has_failed and self.late and "change" in dict(self.calls):
            super().change(self.late)
            self.late = []


def test_a_late_write_that_no_rule_can_exclude_is_found_when_it_is_read_back() -> None:
    """A server that ends a connection has no right to carry out anything of it later; one that does is found out."""
    export = LateExport("before the read-back")
    with growing(export) as (maker, mirror, targets):
        with pytest.raises(ServerError, match="ended the connection"):
            replay_all(maker.journal, mirror, targets=targets)
        maker.frame(Write("a", 0, b"2" * PAGE), Commit())
        with pytest.raises(InputOutputError, match="does not read back as it was written"):
            replay_all(maker.journal, mirror)
        assert not Mirror(mirror).checkpoint.position.lsn
        assert replay_all(maker.journal, mirror).is_consistent
        assert_verifies(mirror)


def test_a_late_write_after_the_read_back_is_found_by_the_next_replay_and_by_verify() -> None:
    export = LateExport("later")
    with growing(export) as (maker, mirror, targets):
        with pytest.raises(ServerError, match="ended the connection"):
            replay_all(maker.journal, mirror, targets=targets)
        maker.frame(Write("a", 0, b"2" * PAGE), Commit())
        assert replay_all(maker.journal, mirror).is_consistent
        export.carry_out()
        assert verified(mirror).bad_pages == 1
        maker.frame(Write("a", 1, b"3" * PAGE), Commit())
        with pytest.raises(ChangedOutsideError, match="is not as the last replay left it"):
            replay_all(maker.journal, mirror)
