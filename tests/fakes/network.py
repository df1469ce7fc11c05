"""Two network namespaces and one cable between them, where this process may make them.

What is below a test's control elsewhere is real here: packets, routes, TCP. A cut takes an end of the cable down, so
that nobody is told: connections hang until somebody's patience ends.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.fakes.loop import call, require, require_tools
from tests.fakes.processes import kill_all

_numbers = itertools.count()


class Network:
    """The cable's ends are called `cable` in both namespaces."""

    near_address = "192.0.2.1"
    far_address = "192.0.2.2"

    def __init__(self) -> None:
        """Nothing is made."""
        name = f"mirrortool-{os.getpid()}-{next(_numbers)}"
        self.near, self.far = f"{name}-near", f"{name}-far"

    def inside(self, name: str) -> list[str]:
        """The beginning of a command line that runs the rest in a namespace, as the same process."""
        return ["nsenter", f"--net=/run/netns/{name}", "--"]

    def make(self) -> None:
        """Both namespaces, and the cable."""
        for name in (self.near, self.far):
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
            require(made.returncode == 0, f"no network namespaces: {made.stderr.strip()}")
        cable = ["cable", "netns", self.near, "type", "veth", "peer", "name", "cable", "netns", self.far]
        joined = subprocess.run(["ip", "link", "add", *cable], capture_output=True, text=True, check=False)
        require(joined.returncode == 0, f"no veth: {joined.stderr.strip()}")
        for name, address in ((self.near, self.near_address), (self.far, self.far_address)):
            call("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            call("ip", "-n", name, "link", "set", "lo", "up")
            self.mend(name)

    def remove(self) -> None:
        """Both namespaces, the cable, and every process in them, whatever of that there is."""
        for name in (self.near, self.far):
            found = call("ip", "netns", "pids", name, check=False)
            kill_all(int(word) for word in found.split())
            call("ip", "netns", "delete", name, check=False)

    def cut(self, name: str) -> None:
        """Take the end of the cable in this namespace down."""
        call("ip", "-n", name, "link", "set", "cable", "down")

    def mend(self, name: str) -> None:
        """Take it up."""
        call("ip", "-n", name, "link", "set", "cable", "up")

    def disturb(self, name: str, *discipline: str) -> None:
        """Let what is sent from this namespace pass through a queueing discipline of tc(8)."""
        call("tc", "-n", name, "qdisc", "replace", "dev", "cable", "root", *discipline)

    def calm(self, name: str) -> None:
        """No discipline any more."""
        with suppress(AssertionError):  # there was none
            call("tc", "-n", name, "qdisc", "delete", "dev", "cable", "root")

    def has(self, *discipline: str) -> bool:
        """Whether this kernel has a discipline."""
        try:
            self.disturb(self.near, *discipline)
        except AssertionError:
            return False
        self.calm(self.near)
        return True


@contextmanager
def two_namespaces() -> Iterator[Network]:
    """A network; gone afterwards, with everything that still runs in it."""
    require(os.geteuid() == 0, "network namespaces need root")
    require_tools("ip", "tc", "nsenter")
    network = Network()
    try:
        network.make()
        yield network
    finally:
        network.remove()
