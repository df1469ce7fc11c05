"""Flush, mark, write back, rotate; start a recorder and stop it."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from mirrortool import mark
from tests.machine.site import Site, precondition, rule, runs, stands


class Committing(Site):
    @precondition(runs)
    @rule()
    def flush(self) -> None:
        with self.power():
            assert self.recorder
            self.recorder.flush()
            self.learn()
            self.model.flushed()

    @precondition(runs)
    @rule(checkpoint=st.booleans())
    def write_back(self, checkpoint: bool) -> None:
        with self.power():
            assert self.recorder
            self.recorder.write_back(checkpoint=checkpoint)
            self.learn()
            self.model.flushed()
            assert self.primary.contents() == self.model.now

    @rule(name=st.sampled_from(["monday", "tuesday"]))
    def mark(self, name: str) -> None:
        with self.power():
            if self.recorder:
                position = self.recorder.commit(name)
                self.learn()
            else:
                position = mark(self.journal_path, name)
                self.model.changed(position.lsn)
            self.model.marked(position.lsn, name)
            self.model.kept(position.lsn)

    @precondition(runs)
    @rule()
    def beat(self) -> None:
        """Ten seconds pass, in which nothing changes."""
        with self.power():
            assert self.recorder
            self.recorder._journal._appended_at = -math.inf
            self.recorder._journal.beat()
            self.learn(beats=True)

    @precondition(runs)
    @rule()
    def rotate(self) -> None:
        """The next frame begins another file."""
        assert self.recorder
        self.recorder._journal._writer._is_over = True

    @precondition(runs)
    @rule()
    def stop(self) -> None:
        with self.power():
            assert self.recorder
            self.recorder.close()
            self.model.committed(self.recorder.statistics().commit_lsn)
            self.model.changed(self.recorder.statistics().head_lsn)
            self.model.flushed()
            self.recorder, self.is_clean = None, True
            assert self.primary.contents() == self.model.now

    @precondition(stands)
    @rule()
    def start(self) -> None:
        with self.power():
            self.start_recorder()
            self.learn()
            assert self.primary_contents() == self.model.now
