"""`mirrortool verify`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, as_json, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, Tone, View
from mirrortool.cli.text import counted, format_seconds, format_time, printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import ChangedOutsideError, CorruptJournalError, FuzzyCommitError, NotComparableError, UsageError
from mirrortool.journal.audit import AuditCancelled
from mirrortool.journal.copies.directory import makes_a_commit
from mirrortool.journal.pathkind import PathKind, kind_of, neither
from mirrortool.mirror.checkpoint import describe
from mirrortool.mirror.verifyjournal import JournalProof, VerifyJournal
from mirrortool.verify import BadRun, Verify, VerifyCancelled, VerifyResult, to_json
from mirrortool.wording import quoted_word

EXIT_BAD_PAGES = 1
RUNS_SHOWN = 20


@click.command("verify")
@click.argument("path", metavar="MIRROR|JOURNAL", type=DIRECTORY)
@click.option(
    "--journal",
    metavar="JOURNAL",
    type=DIRECTORY,
    help="Use the sums of this journal, not those of the mirror's own table.",
)
@click.option("--cached", is_flag=True, help="Read pages from the kernel's cache where it has them.")
@click.option("--allow-fuzzy", is_flag=True, help="Exit 0 even if the mirror is at a fuzzy commit.")
@as_json
@quiet
@writes_in("path")
def command(path: str, journal: str | None, cached: bool, allow_fuzzy: bool, as_json: bool, quiet: bool) -> int:
    """Prove, page by page, that a mirror holds what the primary had at the mirror's commit.

    For a journal: prove that every frame is whole and continues the one before, that its pages have the sums that it
    says, and that each base is what the journal had at its commit.
    """
    kind = kind_of(path)
    if kind in (PathKind.JOURNAL, PathKind.COPY):
        if journal or cached or allow_fuzzy:
            raise UsageError("--journal, --cached and --allow-fuzzy are for a mirror", where=path)
        return _verify_journal(path, as_json, quiet)
    if kind != PathKind.MIRROR:
        raise neither(path)
    return _verify_mirror(path, journal, cached, allow_fuzzy, as_json, quiet)


def _verify_mirror(path: str, journal: str | None, cached: bool, allow_fuzzy: bool, as_json: bool, quiet: bool) -> int:
    with Verify(path, journal_path=journal, cached=cached) as verify:
        result = verify_with_display(verify, quiet, "stopped; nothing was proved")
        if as_json:
            print_json(to_json(verify.mirror, result))
        else:
            _print(result)
        return _conclude(verify, result, quiet, allow_fuzzy)


def verify_with_display(verify: Verify, quiet: bool, when_stopped: str) -> VerifyResult:
    """Verify with a display.

    Raises:
        Interrupted: by a signal; the message is `when_stopped`.
    """
    page_size = verify.mirror.page_size

    def view() -> View:
        now = verify.statistics()
        detail = counted(now.bad_pages, "page differs", "pages differ") if now.bad_pages else ""
        tone = Tone.BAD if now.bad_pages else Tone.GOOD
        return View(now.pages_done, now.pages_total, now.pages_done * page_size, detail, tone=tone)

    with Display("verify", quiet=quiet) as display:
        runner = Runner(verify.run, verify.cancel, lambda: display.answer(view()))
        try:
            return runner.run(lambda: display.show(view()))
        except VerifyCancelled:
            raise Interrupted(runner.signal_number, when_stopped) from None


def _conclude(verify: Verify, result: VerifyResult, quiet: bool, allow_fuzzy: bool) -> int:
    """The exit code, and the next step."""
    checkpoint, path = result.checkpoint, verify.mirror.path
    if verify.save_error:
        tell(
            "mirrortool: WARNING: the result could not be saved, so status does not show it: "
            f"{printable(str(verify.save_error))}"
        )
    if result.bad_pages:
        if not quiet:
            tell(_next_step(verify, result))
        return EXIT_BAD_PAGES
    if verify.journal_error:
        raise verify.journal_error
    if result.wrong_sums:
        raise _wrong_sums(verify, result)
    if result.journal_agrees is False:
        raise CorruptJournalError(
            "the pages are as the sums say, but the journal does not have the state sum of the checkpoint",
            where=verify.mirror.journal_path,
            remedy="mirrortool verify of the journal tells whether its state sums are right",
        )
    if not checkpoint.position.lsn:
        raise NotComparableError(
            "nothing was replayed into the mirror yet, so there is nothing to prove",
            where=path,
            remedy=f"mirrortool replay {quoted_word(verify.mirror.journal_path)} {quoted_word(path)}, then verify",
        )
    if not checkpoint.is_consistent:
        raise NotComparableError(
            f"nothing wrong, but {describe(checkpoint)}",
            where=path,
            remedy=f"mirrortool replay {quoted_word(verify.mirror.journal_path)} {quoted_word(path)}, then verify",
        )
    if checkpoint.is_incomplete:
        raise NotComparableError(
            f"nothing wrong, but at LSN {checkpoint.position.lsn} the primary's initial scan was not complete",
            where=verify.mirror.path,
            remedy="replay again when the initial scan is done",
        )
    if checkpoint.is_fuzzy and not allow_fuzzy:
        raise FuzzyCommitError(
            f"nothing wrong, but the commit at LSN {checkpoint.position.lsn} is fuzzy: a volume changed under the scan",
            where=path,
            remedy="record a snapshot and replay that, or give --allow-fuzzy",
        )
    return 0


def _wrong_sums(verify: Verify, result: VerifyResult) -> ChangedOutsideError:
    """The pages are as their sums say, but some of these are wrong: the error names the files."""
    path, journal = quoted_word(verify.mirror.path), quoted_word(verify.mirror.journal_path)
    if result.table_is_right:
        what = "the sums of segments are not those of the pages' sums, which are right"
        remedy = f"mirrortool replay {journal} {path} makes them again"
    else:
        what = "the pages are as their sums say, but these do not add up to the state sum of the checkpoint"
        remedy = f"mirrortool verify --journal {journal} {path} proves the pages without them; then make a new mirror"
    return ChangedOutsideError(what, where=", ".join(result.wrong_sums), remedy=remedy)


def _next_step(verify: Verify, result: VerifyResult) -> str:
    if result.missing:
        return f"{printable(str(result.missing[0]))}; then verify again"
    if result.table_is_right is False and not verify.takes_journal_sums:
        journal, path = quoted(verify.mirror.journal_path), quoted(verify.mirror.path)
        return f"the mirror's table of sums is damaged; next: mirrortool verify --journal {journal} {path}"
    return "next: replay the journal into a new mirror, and find out what wrote to this one"


def _print(result: VerifyResult) -> None:
    checkpoint = result.checkpoint
    for problem in result.missing:
        click.echo(f"not read: {printable(problem.what)}: {printable(str(problem.where))}")
    for run in result.bad_runs[:RUNS_SHOWN]:
        click.echo(_describe_run(run))
    if len(result.bad_runs) > RUNS_SHOWN:
        click.echo(f"… and {counted(len(result.bad_runs) - RUNS_SHOWN, 'more run')} of bad pages; --json lists them")
    verdict = counted(result.bad_pages, "BAD PAGE") if result.bad_pages else "no bad page"
    if not (result.bad_pages or checkpoint.position.lsn):
        verdict = "nothing proved"
    through = f" through {result.read_through}" if result.read_through else ""
    not_judged = f", {result.pages_in_flight} not judged" if result.pages_in_flight else ""
    when = f" ({format_time(checkpoint.time_ns)})" if checkpoint.time_ns else ""
    click.echo(
        f"{verdict} at LSN {checkpoint.position.lsn}{when}: {counted(result.pages_checked, 'page')} "
        f"checked{through}{not_judged}{_state_sum(result)}, in {format_seconds(result.seconds)}"
    )
    if result.not_held:
        which = f"volume{'s' * (len(result.not_held) > 1)} {', '.join(result.not_held)}"
        click.echo(f"not held by this mirror, and not looked at: {which}")


def _state_sum(result: VerifyResult) -> str:
    """Whether it is the journal's; only where that was proved."""
    if result.journal_agrees is False:
        return ", STATE SUM NOT AS IN THE JOURNAL"
    is_proved = result.journal_agrees and result.table_is_right and result.checkpoint.position.lsn
    return ", state sum as in the journal" if is_proved else ""


def _describe_run(run: BadRun) -> str:
    pages = f"page {run.first_page}" if run.count == 1 else f"pages {run.first_page}-{run.first_page + run.count - 1}"
    if run.is_missing:
        pages += ", on a backing that is not there"
    if run.last_write is None:
        return f"bad: volume {run.volume} {pages}, never written, as far as the journal shows"
    last = run.last_write
    when = format_time(last.time_ns)
    return f"bad: volume {run.volume} {pages}, last written by LSN {last.lsn} of {when} in {last.file}"


def _verify_journal(path: str, as_json: bool, quiet: bool) -> int:
    verify = VerifyJournal(path)
    page_size = verify.journal.page_size

    def view() -> View:
        now = verify.statistics()
        return View(now.lsn, 0, now.pages * page_size, f"LSN {now.lsn}")

    with Display("verify", quiet=quiet) as display:
        runner = Runner(verify.run, verify.cancel, lambda: display.answer(view()))
        try:
            proof = runner.run(lambda: display.show(view()))
        except AuditCancelled:
            raise Interrupted(runner.signal_number, "stopped; nothing was proved") from None
    _print_audit(path, proof, as_json)
    if not (proof.audit.commits or proof.audit.bases):
        raise NotComparableError(
            "no commit yet, so there is nothing to be restored",
            where=path,
            remedy=makes_a_commit(path),
        )
    return 0


def _print_audit(path: str, proof: JournalProof, as_json: bool) -> None:
    result = proof.audit
    if as_json:
        values = {
            "journal": path,
            "lsn": result.lsn,
            "frames": result.frames,
            "operations": result.operations,
            "commits": result.commits,
            "pages_checked": result.pages,
            "bases": result.bases,
            "state_sums_proved_after": proof.proved_after,
            "recorder_sums_proved": proof.is_table_proved,
        }
        print_json(values)
        return
    if not result.frames and not result.bases:
        return  # nothing was proved
    click.echo(
        f"{printable(path)} is whole up to LSN {result.lsn}: {counted(result.frames, 'frame')}, "
        f"{counted(result.commits, 'commit')}, {counted(result.bases, 'base')}, "
        f"{counted(result.pages, 'page')} checked; {_which_state_sums(proof)}"
    )


def _which_state_sums(proof: JournalProof) -> str:
    """Whether the state sums were proved, and from where on."""
    if proof.proved_after is None:
        return f"STATE SUMS NOT PROVED: {printable(proof.why_not)}"
    after = f" after LSN {proof.proved_after}" if proof.proved_after else ""
    also = ", and the recorder's sums" if proof.is_table_proved else ""
    return f"state sums{after} proved{also}"
