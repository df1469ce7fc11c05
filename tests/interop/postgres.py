"""A PostgreSQL whose data and write-ahead log are on two file systems, as its users start, load and check it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.loop import call, mounted, require, require_loops, require_tools
from tests.interop.blockdevice import Serving, block_device

USER = "postgres"
SETTINGS = """
listen_addresses = ''
shared_buffers = 16MB
max_wal_size = 48MB
min_wal_size = 32MB
checkpoint_timeout = 30s
max_connections = 20
autovacuum_naptime = 5s
"""
"""So small that checkpoints come while a load of seconds runs."""
BALANCES = """
select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)
   and (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta), 0) from pgbench_history)
   and (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)
"""


def require_postgres() -> None:
    """PostgreSQL with pg_amcheck, its user, and what makes block devices of exports."""
    require_loops()
    require_tools("nbdfuse", "fusermount3", "mkfs.ext4", "runuser", *map(program, ("initdb", "pgbench", "pg_amcheck")))
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    require(subprocess.run(["id", USER], capture_output=True, check=False).returncode == 0, f"no user {USER}")


def program(name: str) -> str:
    """Where Debian has it, if not in PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else name)


class Cluster:
    """A cluster in two directories."""

    def __init__(self, data: Path, log: Path, run: Path) -> None:
        """
        Args:
            data, log: where its file systems are mounted.
            run: for its socket and what it prints; made.
        """
        self.data, self.log, self._run = data / "pg", log / "pg", run
        run.mkdir()
        shutil.chown(run, USER)

    def make(self) -> None:
        for place in (self.data.parent, self.log.parent):
            shutil.chown(place, USER)
        self._call("initdb", "-N", "-k", "-A", "trust", "--locale=C", "-D", self.data, "-X", self.log)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        for place in (self.data, self.log):
            call("sync", "-f", place)

    def adopt(self) -> None:
        """It was copied here with the file systems, as after a power cut."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.data / "pg_wal").unlink()
        (self.data / "pg_wal").symlink_to(self.log)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started, after recovery if it needs that."""
        options = f"-k {self._run}"
        self._call("pg_ctl", "-D", self.data, "-w", "-t", "120", "-l", self._run / "log", "-o", options, "start")
        try:
            yield
        finally:
            self._call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def fill(self, scale: int) -> None:
        self._client("pgbench", "-i", "-q", "-s", str(scale))
        self.ask("checkpoint")

    def load(self, seconds: int) -> None:
        """Four clients change balances."""
        self._client("pgbench", "-n", "-c", "4", "-j", "2", "-T", str(seconds))

    def ask(self, query: str) -> str:
        return self._client("psql", "-X", "-A", "-t", "-c", query).strip()

    def check(self) -> None:
        """Every index has what its table has, every page its checksum; and no half of a transaction is there."""
        assert self._client("pg_amcheck", "-d", "postgres", "--install-missing", "--heapallindexed").strip() == ""
        assert self.ask(BALANCES) == "t"

    def _client(self, name: str, *arguments: object) -> str:
        environment = ["env", f"PGHOST={self._run}", "PGDATABASE=postgres", f"PGUSER={USER}"]
        return call("runuser", "-u", USER, "--", *environment, program(name), *arguments)

    def _call(self, name: str, *arguments: object) -> None:
        """One that may leave a server behind, which would keep a pipe open."""
        command = ["runuser", "-u", USER, "--", program(name), *map(str, arguments)]
        with (self._run / "called").open("a+") as told:
            done = subprocess.run(command, stdout=told, stderr=told, cwd=self._run, check=False)
        log = self._run / "log"
        assert not done.returncode, (Path(told.name).read_text(), log.read_text() if log.exists() else "")


@contextmanager
def mounted_exports(server: Serving, place: Path, *, make: bool = False) -> Iterator[tuple[Path, Path]]:
    """The file systems of the exports data and log, mounted below a directory; made first, if asked."""
    with (
        block_device(server, place / "nbd-data", "data") as data,
        block_device(server, place / "nbd-log", "log") as log,
    ):
        if make:
            for device in (data, log):
                call("mkfs.ext4", "-q", "-E", "nodiscard", device)
        with mounted(data, place / "data") as one, mounted(log, place / "log") as other:
            yield one, other
