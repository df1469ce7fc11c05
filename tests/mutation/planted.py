"""Faults of kinds that were published about tools like this one. The net must find each, which knows of none.

The net is what looks for no fault in particular: the site, the power cuts at every call, the short sequences, the
machine. No test that was written for one of these faults is among them. A fault that the ordinary tests of the net let
through is one for the long ones.

    python -m tests.mutation planted                                       the ordinary tests of the net
    python -m tests.mutation planted --tests tests/site/test_site.py::test_soak_sites --test-seconds 3600 \
        --run-seconds 3600                                                 thousands of seeds of the site
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutation.mutant import Edit, Mutant, module

NET = (
    "tests/crash/test_every_call.py",
    "tests/site/test_site.py",
    "tests/crash/test_small_scope.py",
    "tests/machine/test_machine.py",
)


@dataclass(frozen=True)
class Planted:
    """A fault: in a module, one text in the place of another."""

    kind: str
    path: str
    old: str
    new: str

    def mutant(self) -> Mutant:
        """As the runner takes it.

        Raises:
            ValueError: the text is not there, or twice.
        """
        text = module(self.path).text
        if text.count(self.old) != 1:
            raise ValueError(f"{self.kind}: {self.path} has it {text.count(self.old)} times: {self.old!r}")
        start = text.index(self.old)
        return Mutant(f"planted: {self.kind}", self.path, (Edit(start, start + len(self.old), self.new),), NET)


PLANTED = (
    Planted(
        "missing directory fsync", "mirrortool/files.py",
        'directory._call("make durable", os.fsync)', "pass",
    ),
    Planted(
        "rename before data", "mirrortool/files.py",
        "            file.pwrite(data, 0)\n            file.fdatasync()\n", "            file.pwrite(data, 0)\n",
    ),
    Planted(
        "lost tail taken for rot", "mirrortool/journal/judgement.py",
        "return checkpoint is None or not checkpoint.boot_id or checkpoint.boot_id != hostinfo.boot_id()",
        "return False",
    ),
    Planted(
        "checkpoint ahead of store", "mirrortool/replay/checkpointer.py",
        "        self._store.sync()\n", "        pass\n",
    ),
    Planted(
        "slot ahead of copy", "mirrortool/ship/session.py",
        "        self._outstanding.append(sent)\n",
        "        self._outstanding.append(sent)\n        self._acknowledge(sent)\n",
    ),
    Planted(
        "zero path skipped", "mirrortool/store/flat.py",
        "    def zero(self, page: int, count: int) -> None:\n",
        "    def zero(self, page: int, count: int) -> None:\n        return\n",
    ),
    Planted(
        "stale lock: two receivers have a copy", "mirrortool/journal/copies/directory.py",
        'return lockholder.hold(files.join(path, "lock"), "the copy", "receive")',
        'return files.open_file(files.join(path, "lock"), write=True, create=True)',
    ),
    Planted(
        "clock back", "mirrortool/journal/writer.py",
        "time_ns = max(self.time_ns, clock.now_ns() if time_ns is None else time_ns)",
        "time_ns = clock.now_ns() if time_ns is None else time_ns",
    ),
    Planted(
        "duplicate acknowledgement", "mirrortool/ship/receiver.py",
        "if durable != self._acknowledged:", "if True:",
    ),
    Planted(
        "prune past a slot", "mirrortool/journal/retention/plan.py",
        "holding = [lag.slot for lag in lags if", "holding = [lag.slot for lag in lags[:0] if",
    ),
)  # fmt: skip


def mutants() -> list[Mutant]:
    """All of them."""
    return [each.mutant() for each in PLANTED]
