"""`mirrortool log`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator

import click

from mirrortool.cli.jsonoutput import json_line, print_json
from mirrortool.cli.options import DIRECTORY, POINT, POINT_METAVAR, as_json, complete_point
from mirrortool.cli.statustext import no_commit_yet
from mirrortool.cli.text import columns, counted, format_time, printable, tell
from mirrortool.errors import JournalError, TornJournalError, UsageError
from mirrortool.files import find_facts
from mirrortool.journal.commits import Commit, commits, is_flush_or_mark, newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import commits_from, position_before
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.operation import Kind, Operation
from mirrortool.status import journal_status

COMMITS_SHOWN = 20


@click.command("log")
@click.argument("journal", type=DIRECTORY)
@click.option(
    "--newest", "number", type=click.IntRange(1), metavar="N",
    help="Only the newest N.  [default: 20; with --since, --all or --ops, all]",
)  # fmt: skip
@click.option("-n", "old_number", type=click.IntRange(1), metavar="N", hidden=True, help="The old name of --newest.")
@click.option(
    "--since", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point, help="All commits at or after this."
)
@click.option("--all", "every", is_flag=True, help="All commits, heartbeats too.")
@click.option("--flush-only", is_flag=True, help="Only commits that a client's flush asked for, and marks.")
@click.option("--ops", is_flag=True, help="All operations, one a line, instead of commits.")
@as_json
def command(
    journal: str,
    number: int | None,
    old_number: int | None,
    since: Until | None,
    every: bool,
    flush_only: bool,
    ops: bool,
    as_json: bool,
) -> None:
    """List the commits of a journal, oldest first.

    Give any of their LSNs, times and marks to replay --until. A recorder appends heartbeats when nothing changes: they
    repeat the commit before them, and are left out unless --all is given. A torn tail or damage is reported after what
    could be read before it.
    """
    if number and old_number:
        raise UsageError("-n is the old name of --newest; give only that")
    number = number or old_number
    opened = Journal(journal)
    if ops and flush_only:
        raise UsageError("--ops lists all operations; it excludes --flush-only")
    if ops:
        _print_lines(_operation_lines(opened, since, as_json), number)
        return
    if every or since is not None:
        found = commits(opened) if since is None else commits_from(opened, since)
        accepted = (each for each in found if is_flush_or_mark(each) or not flush_only)
        counted = (each for each in accepted if every or not each.is_heartbeat)
        _print_lines((_line(each, as_json) for each in counted), number)
        return
    hidden: list[JournalError] = []
    count = number or COMMITS_SHOWN
    listed = newest_commits(opened, count, hidden, heartbeats=False, accept=is_flush_or_mark if flush_only else None)
    if as_json:
        print_json(_to_json(opened, listed))
    else:
        _print_commits(journal, listed)
    status = journal_status(journal)
    if status.unanswered:
        tell(f"mirrortool: {printable(str(status.unanswered))}")
    # A torn tail may only be what is being appended now: journal_status knows.
    damage = next((error for error in hidden if not isinstance(error, TornJournalError)), status.damage)
    if damage:
        raise damage


def _print_commits(journal: str, listed: list[Commit]) -> None:
    if not listed:
        tell(no_commit_yet(journal))
        return
    rows = [_row(commit) for commit in listed]
    for line in columns(("LSN", "TIME", "KIND", "STATE SUM", "MARK"), rows):
        click.echo(line)


def _print_lines(lines: Iterator[str], number: int | None) -> None:
    """Print all lines as they are read; or, after the last one is read, only that number of the last ones.

    Raises:
        JournalError: after the lines before the torn tail or the damage.
    """
    if number is None:
        for line in lines:
            click.echo(line)
        return
    kept: deque[str] = deque(maxlen=min(number, sys.maxsize))
    try:
        kept.extend(lines)
    finally:
        for line in kept:
            click.echo(line)


def _line(commit: Commit, as_json: bool) -> str:
    return json_line(_commit_to_json(commit)) if as_json else "  ".join(_row(commit)).rstrip()


def _operation_lines(journal: Journal, since: Until | None, as_json: bool) -> Iterator[str]:
    start = None if since is None else position_before(journal, since)
    with up_to_what_is_appended(journal), JournalReader(journal, start) as reader:
        while frame := reader.next_frame():
            for operation in frame.batch.operations(frame.header.first_lsn):
                if since is None or since.lsn is None or operation.lsn >= since.lsn:
                    yield _operation_line(operation, frame.header.time_ns, as_json)


def _operation_line(operation: Operation, time_ns: int, as_json: bool) -> str:
    return json_line(_operation_to_json(operation, time_ns)) if as_json else _describe(operation, time_ns)


def _row(commit: Commit) -> tuple[str, ...]:
    kind = commit.kind.name.lower()
    return str(commit.lsn), format_time(commit.time_ns), kind, f"{commit.state_sum:016x}", commit.name or ""


def _describe(operation: Operation, time_ns: int) -> str:
    kind = operation.kind.name
    head = f"{operation.lsn}  {format_time(time_ns)}  {kind}"
    if operation.kind == Kind.RESIZE:
        return f"{head}  page {operation.page:#x}, {counted(operation.count, 'byte')}"
    if operation.commit_kind:
        return f"{head}  {operation.commit_kind.name.lower()} {operation.name or ''}".rstrip()
    return f"{head}  page {operation.page:#x}, {counted(operation.count, 'page')}"


def _to_json(journal: Journal, listed: list[Commit]) -> dict[str, object]:
    return {
        "journal": journal.path,
        "commits": [_commit_to_json(commit) for commit in listed],
        "marks": [_commit_to_json(commit) for commit in listed if commit.name],
        "files": list(_files(journal)),
    }


def _files(journal: Journal) -> Iterator[dict[str, object]]:
    for start in journal.file_starts():
        facts = find_facts(journal.file_path(start))
        yield {"first_lsn": start, "bytes": facts.size if facts else 0}


def _commit_to_json(commit: Commit) -> dict[str, object]:
    return {
        "lsn": commit.lsn,
        "chain": f"{commit.position.chain:016x}",
        "time": commit.time_ns,
        "time_ns": commit.time_ns,
        "kind": commit.kind.name.lower(),
        "state_sum": f"{commit.state_sum:016x}",
        "mark": commit.name,
    }


def _operation_to_json(operation: Operation, time_ns: int) -> dict[str, object]:
    values: dict[str, object] = {
        "lsn": operation.lsn,
        "time": time_ns,
        "time_ns": time_ns,
        "kind": operation.kind.name.lower(),
    }
    if operation.kind == Kind.RESIZE:
        values |= {"page": operation.page, "size": operation.count}
    elif operation.commit_kind:
        values |= {"commit": operation.commit_kind.name.lower(), "mark": operation.name}
    else:
        values |= {"page": operation.page, "count": operation.count}
    return values
