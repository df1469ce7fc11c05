"""`mirrortool replay --follow` as a process, and the mirror that it keeps up to date."""

from __future__ import annotations

from pathlib import Path

from mirrortool.errors import MirrortoolError
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from tests.fakes.daemon import Daemon


class Follower(Daemon):
    """A replay that follows."""

    def __init__(self, journal: Path, mirror: Path, *options: object) -> None:
        super().__init__("replay", journal, mirror, "--follow", *options)
        self.mirror = mirror

    def checkpoint(self) -> Checkpoint | None:
        """The mirror's, now; None if there is no mirror yet."""
        try:
            return Mirror(str(self.mirror)).checkpoint
        except MirrortoolError:
            return None

    def commit_lsn(self) -> int:
        """Where the mirror's checkpoint is; -1 if there is no mirror yet."""
        checkpoint = self.checkpoint()
        return checkpoint.position.lsn if checkpoint else -1

    def wait_for_commit(self, lsn: int) -> None:
        """Until the mirror is at this commit."""

        def is_there() -> bool:
            checkpoint = self.checkpoint()
            return checkpoint is not None and checkpoint.position.lsn == lsn and checkpoint.is_consistent

        self.wait_until(is_there)
