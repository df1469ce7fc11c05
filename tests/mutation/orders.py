"""Each rule of order, of docstrings and manual pages, with two steps the wrong way round, and what finds that.

A step that is left out is in syncs.py; here both are taken, the later one first. So only a cut between them shows it.

    python -m tests.mutation orders
"""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

from tests.mutation.mutant import Edit, Module, Mutant, module
from tests.mutation.syncs import DETACH, FORK, MIRROR, NAMES, PROMOTE, PRUNE, REPLAY, SAVED, SERVE, SHIP, TORN

DETACHED = "tests/record/test_detach.py"
MISSING = "tests/record/test_missingsegments.py"


@dataclass(frozen=True)
class Order:
    """A rule, and how it is broken: a statement of a function is moved.

    Attributes:
        moved: the statement, or how it begins.
        before, after: another, which it is put before, or after.
        number: which of those that look so, from 1; of all three.
        becomes: what is put there, if not just the statement.
    """

    rule: str
    path: str
    function: str
    moved: str
    found_by: str
    before: str = ""
    after: str = ""
    number: int = 1
    becomes: str = ""


ORDERS = (
    Order(
        "a small file is durable before it has its name",
        "mirrortool/files.py", "replace_small", "rename(temporary, path)", SAVED,
        before="file.fdatasync()",
    ),
    Order(
        "a torn tail is durable in torn/ before it is cut off",
        "mirrortool/record/recovery.py", "_move_tail", "source.truncate(offset)", TORN,
        before="copy.fdatasync()", becomes="source.truncate(offset)\nsource.fdatasync()",
    ),
    Order(
        "what a promotion drops is durable in forked/ before it is cut off",
        "mirrortool/journal/setaside.py", "_cut", "file.truncate(end.offset)", FORK,
        before="copy.fdatasync()", becomes="file.truncate(end.offset)\nfile.fdatasync()",
    ),
    Order(
        "the journal says what a promotion has to do before the mirror says that it is promoted",
        "mirrortool/promote.py", "Promotion._begin", "mirror.save_promoted(", PROMOTE,
        before="save_note(",
    ),
    Order(
        "frames after the commit are in forked/ before the journal has the epoch",
        "mirrortool/promote.py", "Promotion._complete", "journal.save_history(", PROMOTE,
        before="fork(",
    ),
    Order(
        "a promotion is complete before promoting.json goes",
        "mirrortool/promote.py", "Promotion._complete", "remove_note(", PROMOTE,
        before="fork(",
    ),
    Order(
        "the reached LSN is raised before a window changes its first byte",
        "mirrortool/replay/delegator.py", "Delegator._delegate", "self._raise_reached(last)", REPLAY,
        after="self._engine.delegate(", becomes="self._engine.wait_drained()\nself._raise_reached(last)",
    ),
    Order(
        "the store is durable before the checkpoint says what it holds",
        "mirrortool/replay/checkpointer.py", "Checkpointer._work", "self._save(", REPLAY,
        before="self._make_durable(changes)",
    ),
    Order(
        "the sums are durable before the checkpoint says what they give",
        "mirrortool/replay/checkpointer.py", "Checkpointer._work", "self._save(", REPLAY,
        before="self._sums.sync()",
    ),
    Order(
        "a slot advances when the checkpoint is durable",
        "mirrortool/replay/checkpointer.py", "Checkpointer._save", "self._tell(is_idle=False)", REPLAY,
        before="is_alone =", becomes="if self._on_saved:\n    self._on_saved(new, True)",
    ),
    Order(
        "nothing is written to a volume before its frame is durable",
        "mirrortool/record/volumeside.py", "VolumeSide._write_back", "self._journal.sync()", SERVE,
        after="self._arrive(self._keep_time)", number=2,
    ),
    Order(
        "a large ZERO is durable before its bytes are zeroed",
        "mirrortool/record/volumeside.py", "VolumeSide.zero_now", "self._journal.sync()", SERVE,
        before="self.sync()",
    ),
    Order(
        "the volumes are durable before recorder.json says what they hold",
        "mirrortool/record/volumeside.py", "VolumeSide._arrive", "self.sync()", SERVE,
        after="self._save_checkpoint(",
    ),
    Order(
        "the sums are durable before recorder.json says what they give",
        "mirrortool/record/recovery.py", "OpenJournal.save_checkpoint", "self._sync_sums()", SERVE,
        after="self.journal.save_recorder_checkpoint(",
    ),
    Order(
        "a base has its name before the files that it replaces go",
        "mirrortool/journal/copies/basetransfer.py", "ArrivingBase.install", "_finish(", SHIP,
        before="files.rename(",
    ),
    Order(
        "a slot of a copy is lost before what it needs goes",
        "mirrortool/journal/copies/basetransfer.py", "_finish", "for slot in slots.slots(journal):", SHIP,
        after="for each in journal.file_starts():",
    ),
    Order(
        "a slot is lost before what it needs goes",
        "mirrortool/journal/retention/prune.py", "_carry_out", "for slot in planned.lost:", PRUNE,
        after="for first_lsn in planned.files:",
    ),
    Order(
        "journal files are removed oldest first",
        "mirrortool/journal/retention/prune.py", "_carry_out", "for first_lsn in planned.files:", PRUNE,
        before="for lsn in planned.bases:", becomes=(
            "for first_lsn in reversed(planned.files):\n"
            "    files.remove(journal.file_path(Lsn(first_lsn)))\n    files.sync_directory(journal.files_path)"
        ),
    ),
    Order(
        "what a link led to is gone before the link",
        "mirrortool/journal/bases/listing.py", "_remove_linked", "files.remove(path)", NAMES,
        before="remove_elsewhere(where)", becomes="files.remove(path)\nfiles.sync_name(path)",
    ),
    Order(
        "what is elsewhere has a link here before it is made",
        "mirrortool/journal/bases/basewriter.py", "BaseWriter._make_file", "link_elsewhere(", NAMES,
        after="files.sync_name(self._elsewhere)",
    ),
    Order(
        "a base is durable before it has its name",
        "mirrortool/journal/bases/basewriter.py", "BaseWriter.finish", "file.fdatasync()", NAMES,
        after="files.rename(", becomes="files.open_file(self._path, write=True).fdatasync()",
    ),
    Order(
        "the list of missing segments is durable before its log is cut",
        "mirrortool/record/missingsegments.py", "NotedSegments._rewrite", "self._cut_log()", SAVED,
        before="jsonfile.save(", becomes="self._records = 0\nself._cut_log()",
    ),
    Order(
        "a segment is noted before its first byte changes",
        "mirrortool/record/detach.py", "Detachment.change", "self._noted.add(", DETACHED,
        after="self._volumes.write_now(content)",
    ),
    Order(
        "what was captured is durable before it is forgotten that it was missing",
        "mirrortool/record/detach.py", "Detachment._capture_segment", "self._noted.remove(segment)", DETACH,
        before="self._journal.sync()",
    ),
    Order(
        "mirror.json is the last file of a new mirror",
        "mirrortool/mirror/newmirror.py", "_save_new", 'jsonfile.save(files.join(path, "checkpoint.json")', MIRROR,
        after='jsonfile.save(files.join(path, "mirror.json")',
    ),
    Order(
        "how the volumes were left is forgotten before they are labelled",
        "mirrortool/replay/session.py", "Replay._begin_writing", "volumelabels.attach(self.mirror)", NAMES,
        before="if not self._is_suspect:",
    ),
)  # fmt: skip


def mutants() -> list[Mutant]:
    """One for each rule."""
    return [Mutant(each.rule, each.path, _edits(module(each.path), each), (each.found_by,)) for each in ORDERS]


def _edits(source: Module, order: Order) -> tuple[Edit, ...]:
    moved = _statement(source, order, order.moved)
    place = _statement(source, order, order.before or order.after)
    text = order.becomes or textwrap.dedent(" " * moved.col_offset + source.source_of(moved))
    there = textwrap.indent(text, " " * place.col_offset).lstrip()
    at, line = source.replace(place, ""), "\n" + " " * place.col_offset
    insert = Edit(at.start, at.start, there + line) if order.before else Edit(at.end, at.end, line + there)
    return source.replace(moved, "pass"), insert


def _statement(source: Module, order: Order, begins: str) -> ast.stmt:
    found = [
        node
        for within, node in source.named()
        if within == order.function and isinstance(node, ast.stmt) and source.source_of(node).startswith(begins)
    ]
    several = [node for node in found if source.source_of(node).startswith(begins)]
    return several[order.number - 1 if len(several) > 1 else 0]
