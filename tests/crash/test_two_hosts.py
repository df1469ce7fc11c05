"""Two hosts on one: a recorder under load, ship to a far copy, replay --follow there; everything is killed in turn.

Whatever is killed, the link included, and however often: fakes/hosts.py says what is promised. The far side runs
through `--rsh` with a script in place of ssh; tests/interop/test_two_namespaces.py has hosts that a network joins.

The long run, 100 kills of each: pytest -m soak tests/crash/test_two_hosts.py
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.crash.load import Kit, Load, make_kit
from tests.fakes.daemon import SMALL_FILES, Daemon
from tests.fakes.hosts import Hosts
from tests.fakes.volumes import fast_directory


class Clients:
    """Work that knows each write which was acknowledged."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._loads: list[Load] = []

    @property
    def is_on(self) -> bool:
        return bool(self._loads)

    @property
    def failure(self) -> object:
        return next((load.failure for load in self._loads if load.failure), None)

    def recovered(self) -> None:
        self._kit.model.reconcile(self._kit.read())

    def begin(self, seed: int) -> None:
        self._loads = self._kit.load(seed)

    def ending(self) -> None:
        """A client that writes also looks at what was answered."""

    def join(self) -> None:
        self._kit.join(self._loads)
        self._loads = []

    def finish(self) -> None:
        """All of it is known."""

    def check(self, image: Path) -> None:
        is_same = image.read_bytes() == self._kit.model.image
        assert is_same


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with fast_directory() as path:
        made = make_hosts(Path(path))
        try:
            yield made
        finally:
            made.end()


def make_hosts(path: Path) -> Hosts:
    primary, far = path / "primary", path / "far"
    primary.mkdir()
    far.mkdir()
    kit = make_kit(primary, SMALL_FILES)
    rsh = path / "fakersh"
    # The shell stays, as ssh does: what it runs is its child.
    rsh.write_text('#!/bin/sh\nshift\nsh -c "exec $1"\nexit $?\n')
    rsh.chmod(0o755)
    copy, mirror = far / "journal", far / "mirror"
    ship = Daemon(
        "ship", kit.site.journal, f"far:{copy}", "--follow", "--rsh", rsh,
        "--remote-path", f"{sys.executable} -m mirrortool", "--timeout", "15s",
    )  # fmt: skip
    replay = Daemon("replay", copy, mirror, "--follow")
    return Hosts(kit.site, kit.live, Clients(kit), copy, mirror, ship, replay)


def kill_in_turn(hosts: Hosts, kills: int, seed: int, *, prune_every: int) -> None:
    turns = islice(cycle(hosts.troubles), kills)
    hosts.run(random.Random(seed), list(turns), prune_every=prune_every)


def test_the_mirror_gets_there_whatever_is_killed(hosts: Hosts) -> None:
    kill_in_turn(hosts, 5, 1, prune_every=4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_the_mirror_gets_there_in_100_kills_of_each(hosts: Hosts, seed: int) -> None:
    """Over all seeds."""
    kill_in_turn(hosts, 100, 100 + seed, prune_every=21)
