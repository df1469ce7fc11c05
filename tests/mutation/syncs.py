"""Each call that makes something durable, and what finds that it is missing; or why nothing needs to.

A call is named by its module, the function that it is in, and what is called; see mutant.py. Its mutant leaves it out;
of a rename, a directory, a link or a small file, it leaves out what makes the name durable (unsynced.py). Steps in an
order are made wrong in orders.py.

    python -m tests.mutation syncs                 run all: some fifteen minutes
    python -m tests.mutation syncs -k writer.py    some of them

Nothing is removed from the program because a mutant survives: the model of a disk may be too kind.
"""

from __future__ import annotations

import ast
import re

from tests.mutation.mutant import Module, Mutant, modules

_IS_SYNC = re.compile(
    r"_?sync|_?sync_(?!seconds)\w+|fdatasync|fsync|rename|remove_durably|make_link|make_directory|claim_directory"
)
"""Names of functions that make something durable; with those of small files, below."""
_SMALL_FILES = {"replace_small", "files.replace_small", "jsonfile.save"}
_UNSYNCED = {"rename", "remove_durably", "make_directory", "claim_directory", "make_link", "replace_small", "save"}
_IN_PLACE = {
    "JournalWriter.sync:self._end.sync": "self._end.position",
    "JournalSide.sync:self._writer.sync": "self._writer.position",
    "Receiver.make_durable:self._copy.sync": "self._copy.position",
}
"""What a call gives that is left out, where that is used."""


class Argued(str):
    """Why nothing needs to find that the call is missing."""


AHEAD = Argued("a table that is ahead of the journal has another state sum, and is made anew")
SAVED = "tests/journal/test_durable.py"
MIRROR = "tests/mirror/test_durable.py"
WRITER = "tests/journal/test_writer_power.py"
COPY = "tests/journal/copies/test_copy_power.py"
FORK = "tests/journal/test_setaside.py"
PRUNE = "tests/journal/retention/test_prune_durable.py"
SHIP = "tests/ship/test_durable.py::test_what_the_sender_was_told_is_there[each]"
SHIP_KILLED = "tests/ship/test_durable.py::test_what_a_killed_receiver_left_is_completed_durably[each]"
PROMOTE = "tests/promote/test_durable.py::test_a_promotion_that_ended_is_complete_whatever_the_disk_loses[each]"
PROMOTE_KILLED = "tests/promote/test_durable.py::test_a_promotion_that_was_killed_is_completed_durably[each]"
SERVE = "tests/record/test_durable.py::test_what_was_promised_is_there[each-serve]"
SCAN = "tests/record/test_durable.py::test_what_was_promised_is_there[each-scan]"
DETACH = (
    "tests/record/test_durable.py::test_what_was_captured_is_durable_before_it_is_forgotten_that_it_was_missing[each]"
)
STALLED = "tests/record/test_durable.py::test_a_frame_with_the_time_is_durable_before_a_volume_is_written_late"
DRAINED = "tests/record/test_durable.py::test_what_comes_before_a_large_zero_is_durable_before_it_is_written"
TORN = "tests/record/test_durable.py::test_a_torn_tail_is_kept_and_what_is_redone_is_there[each-False]"
TORN_FILE = "tests/record/test_durable.py::test_a_torn_tail_is_kept_and_what_is_redone_is_there[each-True]"
RESIZE = "tests/record/test_resize.py"
REPLAY = "tests/replay/test_durable.py::test_a_mirror_says_what_it_is[each]"
START_OVER = "tests/replay/test_durable.py::test_a_mirror_that_starts_over_says_what_it_is[each]"
EXPORT = "tests/serve/test_exportfile.py::test_after_a_power_cut_the_file_is_whole_or_as_it_was[each]"
SPANNED = "tests/store/test_spanned_crash.py::test_a_crash_at_any_call_changes_nothing_that_redo_does_not_go_over[each]"
SPANNED_KILLED = (
    "tests/store/test_spanned_crash.py::test_what_a_killed_process_left_is_durable_before_anything_is_built_on_it[each]"
)
BACKING = "tests/store/test_backing.py"
DRAINED_BACKING = (
    "tests/store/test_draining.py::test_a_crash_at_any_call_loses_nothing_and_the_next_call_completes_it[each]"
)
NAMES = "tests/crash/test_names_power.py"

SAME_DIRECTORY = Argued("the next call syncs the same directory, and nothing needs the name before that")
STOPPED_TWICE = Argued("what repeats it after a crash syncs it again, and nothing was told or removed before")

SYNCS: dict[str, dict[str, str]] = {
    "mirrortool/cli/demo.py": {
        "_workplace:files.make_directory": Argued("what the demonstration leaves is for looking at, and made anew"),
    },
    "mirrortool/files.py": {
        "replace_small:file.fdatasync": SAVED,
        "replace_small:rename": SAVED,
        "rename:sync_name": SAVED,
        "rename:sync_name:2": "tests/test_files.py",
        "make_link:sync_name": SAVED,
        "sync_directory:directory._call": SAVED,
        "sync_name:sync_directory": SAVED,
        "make_directory:sync_directory": SAVED,
        "claim_directory:sync_directory": SAVED,
        "sync_directories:sync_directory": PRUNE,
        "remove_durably:sync_name": SAVED,
        "write_again:file.fdatasync": Argued("what calls it reads the file, or appends to it, which makes it durable"),
    },
    "mirrortool/journal/appender.py": {
        "Appender.begin:self.sync": WRITER,
        "Appender.begin:files.sync_name": WRITER,
        "Appender.stand:files.sync_name": WRITER,
        "Appender.sync:self._sync_file": WRITER,
        "Appender._sync_file:file.fdatasync": WRITER,
        "Appender._cut_failed_append:file.fdatasync": WRITER,
    },
    "mirrortool/journal/bases/basewriter.py": {
        "BaseWriter.finish:file.fdatasync": NAMES,
        "BaseWriter.finish:files.rename": NAMES,
        "BaseWriter._make_file:files.sync_name": NAMES,
    },
    "mirrortool/journal/bases/listing.py": {
        "remove_base:files.rename": NAMES,
        "link_elsewhere:files.make_link": SAVED,
        "remove_elsewhere:files.sync_name": NAMES,
        "lock_bases:files.make_directory": SAVED,
    },
    "mirrortool/journal/copies/basetransfer.py": {
        "ArrivingBase.__init__:files.make_directory": Argued(
            "lock_bases makes the same durable before anything is replaced"
        ),
        "ArrivingBase.__init__:files.make_directory:2": Argued(
            "the base gets its name beside it, durably; until then what arrives may be sent again"
        ),
        "ArrivingBase.__init__:files.sync_name": SHIP,
        "ArrivingBase.sync:self._file.fdatasync": SHIP,
        "ArrivingBase.install:files.sync_directory": Argued(
            "both names in it are durable since they were made, and the rename syncs it, too"
        ),
        "ArrivingBase.install:files.rename": SHIP,
        "ArrivingBase._check:self.sync": Argued(
            "the copy syncs what arrives before it is installed; until then it may be sent again"
        ),
        "finish_base_transfer:files.sync_directories": SHIP_KILLED,
        "_finish:files.remove_durably": SHIP,
        "_finish:files.rename": Argued("a rename that is lost is due again, and the next opening finishes it"),
        "_clean:files.remove_durably": COPY,
    },
    "mirrortool/journal/copies/copy.py": {
        "Copy.close:self.sync": COPY,
        "Copy.begin:files.make_directory": SAME_DIRECTORY,
        "Copy.begin:self.sync": Argued("frames of the epoch before that are lost come again; none was acknowledged"),
        "Copy.begin_base:self.sync": Argued("what is lost of the files that the base replaces was not acknowledged"),
        "Copy.sync:self._arriving.sync": Argued(
            "a base is synced when all of it was checked; until then it may be sent again"
        ),
        "Copy.sync:self._end.sync": COPY,
        "Copy.note_end:self.sync": COPY,
        "_cut:files.remove_durably": Argued("a file that was only begun is cut, or begun anew, if it comes back"),
        "_cut:file.fdatasync": Argued(
            "what is written again or appended makes the cut durable; a tail that comes back before that is torn again"
        ),
        "Copy._append_file:self.sync": Argued("beginning a file syncs it, too; here for which error comes first"),
    },
    "mirrortool/journal/copies/directory.py": {
        "lock_copy:files.claim_directory": SAVED,
        "load_id:jsonfile.save": SAVED,
    },
    "mirrortool/journal/directory.py": {
        "Journal.save:jsonfile.save": SAVED,
        "Journal.save_volume_paths:jsonfile.save": SAVED,
        "Journal.save_recorder_checkpoint:jsonfile.save": SAVED,
        "create:files.claim_directory": SAVED,
        "_fill:files.make_directory": SAME_DIRECTORY,
        "share_slots:files.make_directory": SAVED,
    },
    "mirrortool/journal/durablemark.py": {
        "save_mark:jsonfile.save": SAVED,
        "drop_mark:files.remove_durably": SAVED,
    },
    "mirrortool/journal/journalfile.py": {
        "JournalFile.refresh:self._file.fdatasync": "tests/journal/test_reader.py",
    },
    "mirrortool/journal/retention/prune.py": {
        "_carry_out:files.sync_directories": PRUNE,
        "_carry_out:files.remove_durably": PRUNE,
        "_carry_out:files.sync_directory": PRUNE,
    },
    "mirrortool/journal/setaside.py": {
        "fork:files.make_directory": FORK,
        "fork:files.rename": Argued("fork ends with the sync of both directories, and until then it is repeated"),
        "fork:files.rename:2": Argued("fork ends with the sync of both directories, and until then it is repeated"),
        "fork:files.sync_directories": FORK,
        "_cut:file.fdatasync": FORK,
        "_cut:copy.fdatasync": FORK,
        "_cut:files.sync_directory": FORK,
        "_cut:file.fdatasync:2": FORK,
    },
    "mirrortool/journal/slots.py": {
        "save:jsonfile.save": SAVED,
        "remove:files.sync_directory": SAVED,
        "lose_after_fork:files.sync_directory": SAVED,
        "_try_lock:files.make_directory": SAVED,
    },
    "mirrortool/journal/unfinished.py": {
        "save_note:jsonfile.save": SAVED,
        "remove_note:files.remove_durably": SAVED,
    },
    "mirrortool/journal/writer.py": {
        "JournalWriter.sync:self._end.sync": WRITER,
        "JournalWriter.close:self.sync": WRITER,
        "JournalWriter._remove_begun_successor:files.remove_durably": Argued(
            "the file that is continued or begun next syncs the same directory"
        ),
        "JournalWriter._begin_file:self._end.sync": Argued("begin syncs the same; here for which error comes first"),
    },
    "mirrortool/jsonfile.py": {
        "save:files.replace_small": SAVED,
    },
    "mirrortool/lockholder.py": {
        "hold:files.sync_name": "tests/test_lockholder.py",
    },
    "mirrortool/mirror/directory.py": {
        "Mirror.save_checkpoint:jsonfile.save": MIRROR,
        "Mirror._change:jsonfile.save": MIRROR,
    },
    "mirrortool/mirror/findings.py": {
        "save:files.make_directory": MIRROR,
        "save:jsonfile.save": MIRROR,
        "Repairs.mend_sums:sums.sync": MIRROR,
    },
    "mirrortool/mirror/lastreplay.py": {
        "save:jsonfile.save": MIRROR,
    },
    "mirrortool/mirror/lastseen.py": {
        "note:jsonfile.save": MIRROR,
        "carry_over:jsonfile.save": MIRROR,
        "forget:files.remove_durably": MIRROR,
        "forget_some:jsonfile.save": Argued("a note that comes back says another file is in its place, and is refused"),
    },
    "mirrortool/mirror/newbacking.py": {
        "NewBacking.make:files.sync_name": "tests/mirror/test_managebackings.py::"
        "test_what_a_power_cut_stopped_is_completed_by_the_same_call[add-each]",
    },
    "mirrortool/mirror/newmirror.py": {
        "create:files.claim_directory": MIRROR,
        "create:files.make_directory": SAME_DIRECTORY,
        "create:files.make_directory:2": SAME_DIRECTORY,
        "_save_new:jsonfile.save": MIRROR,
        "_save_new:jsonfile.save:2": MIRROR,
    },
    "mirrortool/mirror/receipts.py": {
        "keep:jsonfile.save": MIRROR,
    },
    "mirrortool/mirror/targetvolume.py": {
        "prepare_target:file.fdatasync": MIRROR,
        "prepare_target:files.sync_name": MIRROR,
    },
    "mirrortool/mirror/volumeregistry.py": {
        "note:jsonfile.save": MIRROR,
        "_make_directories:files.make_directory": MIRROR,
    },
    "mirrortool/openfile.py": {
        "File.fdatasync:os.fdatasync": SAVED,
    },
    "mirrortool/points/view.py": {
        "PointView._open_file:file.fdatasync": "tests/points/test_reading.py::test_what_is_read_is_durable_before",
    },
    "mirrortool/promote.py": {
        "Promotion._complete:files.make_directory": SAME_DIRECTORY,
    },
    "mirrortool/record/createjournal.py": {
        "_make_file:file.fdatasync": SAVED,
        "_make_file:files.sync_name": SAVED,
    },
    "mirrortool/record/detach.py": {
        "Detachment.sync:self._volumes.sync": "tests/record/test_detach.py",
        "Detachment._capture_segment:self._volumes.sync": "tests/record/test_detach.py",
        "Detachment._capture_segment:self._journal.sync": DETACH,
    },
    "mirrortool/record/initialscan.py": {
        "InitialScan.run:self._recorder.sync_volumes": Argued(
            "what is lost is scanned again, until a checkpoint, which syncs, says that all is journaled"
        ),
    },
    "mirrortool/record/heldvolumes.py": {
        "HeldVolumes.resize_file:self._files[name].fdatasync": RESIZE,
    },
    "mirrortool/record/journalside.py": {
        "JournalSide.flush:self.sync": "tests/record/test_journalside.py",
        "JournalSide.flush:self.sync:2": SERVE,
        "JournalSide.sync:self._writer.sync": SERVE,
    },
    "mirrortool/record/mark.py": {
        "mark:opened.writer.sync": "tests/record/test_durable.py::test_a_mark_is_there_when_it_was_made",
    },
    "mirrortool/record/missingsegments.py": {
        "NotedSegments._append:log.fdatasync": SAVED,
        "NotedSegments._rewrite:jsonfile.save": SAVED,
        "NotedSegments._cut_log:log.fdatasync": Argued(
            "the next append syncs the same file; records that come back without one are those of the list"
        ),
        "NotedSegments._cut_log:files.sync_name": SAVED,
        "forget_noted:files.remove_durably": SAVED,
    },
    "mirrortool/record/recorder.py": {
        "Recorder.flush:self._detachment.sync": "tests/record/test_detach.py",
        "Recorder.commit:self._journal.sync": SERVE,
        "Recorder.sync_volumes:self._volumes.sync": Argued(
            "what is lost is scanned again, until a checkpoint, which syncs, says that all is journaled"
        ),
    },
    "mirrortool/record/recovery.py": {
        "OpenJournal.__exit__:self._sync_sums": "tests/record/test_recovery.py",
        "OpenJournal.save_checkpoint:self._sync_sums": SERVE,
        "OpenJournal._sync_sums:self.sums.sync": "tests/record/test_recovery.py",
        "OpenJournal._redo_held:store.sync": TORN,
        "_open_sums:files.make_directory": SAME_DIRECTORY,
        "_move_tail:files.make_directory": TORN,
        "_move_tail:copy.fdatasync": TORN,
        "_move_tail:files.sync_directory": TORN,
        "_move_tail:source.fdatasync": Argued(
            "recovery reads the file again, which makes durable what it reads, or that it ends"
        ),
        "_move_tail:files.remove_durably": Argued(
            "the writer, which is opened next, stands at a file and syncs the same directory"
        ),
    },
    "mirrortool/record/resize.py": {
        "_Resizing.run:self._writer.sync": RESIZE,
        "_Resizing._journal_size:self._writer.sync": AHEAD,
        "_Resizing._apply_pending:self._writer.sync": AHEAD,
    },
    "mirrortool/record/scan.py": {
        "Scan._apply_pending:self._writer.sync": AHEAD,
    },
    "mirrortool/record/scansources.py": {
        "Source.changed:self.file.fdatasync": "tests/record/test_scansources.py",
        "open_source:file.fdatasync": "tests/record/test_mapped_volumes.py",
    },
    "mirrortool/record/volumeside.py": {
        "VolumeSide.drained:self._journal.sync": DRAINED,
        "VolumeSide.zero_now:self._journal.sync": SERVE,
        "VolumeSide.zero_now:self.sync": SERVE,
        "VolumeSide.sync:self.store.sync": SERVE,
        "VolumeSide._write_back:self._journal.sync": "tests/record/test_writeback_faults.py",
        "VolumeSide._write_back:self._journal.sync:2": SERVE,
        "VolumeSide._arrive:self.sync": SERVE,
        "VolumeSide._keep_time:self._journal.sync": STALLED,
    },
    "mirrortool/replay/checkpointer.py": {
        "Checkpointer._work:self._sums.sync": REPLAY,
        "Checkpointer._make_durable:self._store.sync": REPLAY,
    },
    "mirrortool/replay/tuner.py": {
        "Tuner.end_window:self._store.sync": Argued("it is timed, to choose how to write; a checkpoint syncs anyhow"),
    },
    "mirrortool/serve/exportfile.py": {
        "_NewFile.finish:self._file.fdatasync": EXPORT,
        "_NewFile.finish:files.rename": EXPORT,
        "_Device.finish:self._file.fdatasync": "tests/serve/test_exportfile.py::test_a_device_has_it_durably",
    },
    "mirrortool/ship/receiver.py": {
        "Receiver.make_durable:self._copy.sync": "tests/ship/test_receiver.py",
    },
    "mirrortool/store/allocation.py": {
        "Allocation.free_cells:backing.sync": SPANNED,
        "Allocation._take:self._backings[number].sync": SPANNED,
    },
    "mirrortool/store/backing.py": {
        "Backing.sync:self.file.fdatasync": SPANNED,
        "Backing.sync_table:self.sync": SPANNED,
        "make_backing:file.fdatasync": BACKING,
        "make_backing:file.fdatasync:2": BACKING,
        "unmake_backing:file.fdatasync": BACKING,
    },
    "mirrortool/store/backingset.py": {
        "BackingSet.read_from_device:self.sync": SPANNED_KILLED,
        "_sync:backing.sync": SPANNED,
        "_sync_table:backing.sync_table": SPANNED,
    },
    "mirrortool/store/draining.py": {
        "Draining._move:self._backings.sync": DRAINED_BACKING,
        "Draining._move:self._sync": DRAINED_BACKING,
    },
    "mirrortool/store/extentload.py": {
        "zero_leftovers:backing.sync": SPANNED_KILLED,
    },
    "mirrortool/store/flat.py": {
        "FlatStore._sync:file.fdatasync": SERVE,
    },
    "mirrortool/store/joined.py": {
        "JoinedStore._sync:store.sync": "tests/store/test_joined.py",
    },
    "mirrortool/store/spanned.py": {
        "SpannedStore._sync:self._backings.sync": SPANNED,
        "SpannedStore._sync:self._backings.sync_tables": SPANNED,
        "SpannedStore._leave_clean:self._backings.sync_tables": Argued(
            "records that are lost say that their cells are claimed, and the next opening zeroes those"
        ),
    },
    "mirrortool/store/pagesums.py": {
        "copy_sums:copy.fdatasync": PROMOTE,
        "copy_sums:files.sync_directory": PROMOTE,
        "PageSums.__init__:files.sync_directory": MIRROR,
        "PageSums.sync:file.fdatasync": REPLAY,
    },
    "mirrortool/verify.py": {
        "Verify.run:self._store.sync": Argued("nothing is written: it only keeps times from changing later"),
        "Verify._compare:self._store.sync": Argued("what is dirty cannot be dropped, and is then read from the cache"),
    },
}


def sync_calls(module: Module) -> list[tuple[str, ast.Call]]:
    """The calls of a module that make something durable, by their names."""
    return [(name, call) for name, call in module.calls() if _makes_durable(call)]


def mutants() -> list[Mutant]:
    """One for each call that is listed, and is there."""
    found = []
    for module in modules():
        listed = SYNCS.get(module.path, {})
        found += [_mutant(module, name, call, listed[name]) for name, call in sync_calls(module) if name in listed]
    return found


def _makes_durable(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    is_given = any(ast.unparse(each) in ("os.fsync", "os.fdatasync") for each in call.args)
    return is_given or called in _SMALL_FILES or bool(_IS_SYNC.fullmatch(called.rpartition(".")[2]))


def _mutant(module: Module, name: str, call: ast.Call, found_by: str) -> Mutant:
    last = ast.unparse(call.func).rpartition(".")[2]
    if last in _UNSYNCED:
        edit = module.replace(call.func, f'__import__("tests.mutation.unsynced", fromlist=["_"]).{last}')
    else:
        edit = module.replace(call, _IN_PLACE.get(name, "None"))
    is_argued = isinstance(found_by, Argued)
    return Mutant(
        f"{module.path}:{name}", module.path, (edit,), () if is_argued else (found_by,), found_by if is_argued else ""
    )
