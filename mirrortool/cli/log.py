"""`mirrortool log`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import click

from mirrortool.cli.options import DIRECTORY, TIME, as_json
from mirrortool.cli.text import columns, format_time, tell
from mirrortool.errors import JournalError, TornJournalError, UsageError
from mirrortool.files import find_facts
from mirrortool.journal.commits import Commit, commits, commits_since, is_flush, newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.operation import Kind, Operation
from mirrortool.status import journal_status


@click.command("log")
@click.argument("journal", type=DIRECTORY)
@click.option("-n", "number", type=click.IntRange(1), default=20, show_default=True, help="The newest so many commits.")
@click.option("--since", type=TIME, metavar="TIME", help="All commits at or after this time.")
@click.option("--all", "every", is_flag=True, help="All commits, heartbeats too.")
@click.option("--flush-only", is_flag=True, help="Only what a client's flush, or a mark, made a commit.")
@click.option("--ops", is_flag=True, help="All operations, one a line, instead of commits.")
@as_json
def command(
    journal: str, number: int, since: int | None, every: bool, flush_only: bool, ops: bool, as_json: bool
) -> None:
    """List the commits of a journal, oldest first.

    Any of their LSNs, times and marks is good for replay --until. Heartbeats, which a recorder appends when nothing
    changes, repeat the commit before them, and are left out unless --all is given. A torn tail or damage is reported
    after what could be read before it.
    """
    opened = Journal(journal)
    if ops and flush_only:
        raise UsageError("--ops lists all operations; it excludes --flush-only")
    if ops:
        _print_operations(opened, as_json)
        return
    if every or since is not None:
        found: Iterable[Commit] = commits(opened) if since is None else commits_since(opened, since)
        accepted = (each for each in found if is_flush(each) or not flush_only)
        _print_stream((each for each in accepted if every or not each.is_heartbeat), as_json)
        return
    hidden: list[JournalError] = []
    listed = newest_commits(opened, number, hidden, heartbeats=False, accept=is_flush if flush_only else None)
    if as_json:
        click.echo(json.dumps(_to_json(opened, listed)))
    else:
        _print_commits(listed)
    # A torn tail may only be what is being appended now: journal_status knows.
    damage = next(
        (error for error in hidden if not isinstance(error, TornJournalError)), journal_status(journal).damage
    )
    if damage:
        raise damage


def _print_commits(listed: list[Commit]) -> None:
    if not listed:
        tell("no commit yet; next: mirrortool record")
        return
    rows = [_row(commit) for commit in listed]
    for line in columns(("LSN", "TIME", "KIND", "STATE SUM", "MARK"), rows):
        click.echo(line)


def _print_stream(found: Iterable[Commit], as_json: bool) -> None:
    """Commits as they are read, however many."""
    for commit in found:
        click.echo(json.dumps(_commit_to_json(commit)) if as_json else "  ".join(_row(commit)).rstrip())


def _print_operations(journal: Journal, as_json: bool) -> None:
    with up_to_what_is_appended(journal), JournalReader(journal) as reader:
        while frame := reader.next_frame():
            for operation in frame.batch.operations(frame.header.first_lsn, journal.page_size):
                if as_json:
                    click.echo(json.dumps(_operation_to_json(operation, frame.header.time_ns)))
                else:
                    click.echo(_describe(operation, frame.header.time_ns))


def _row(commit: Commit) -> tuple[str, ...]:
    kind = commit.kind.name.lower()
    return str(commit.lsn), format_time(commit.time_ns), kind, f"{commit.state_sum:016x}", commit.name or ""


def _describe(operation: Operation, time_ns: int) -> str:
    kind = operation.kind.name
    head = f"{operation.lsn}  {format_time(time_ns)}  {kind}"
    if operation.kind == Kind.RESIZE:
        return f"{head}  page {operation.page:#x}, {operation.count} bytes"
    if operation.commit_kind:
        return f"{head}  {operation.commit_kind.name.lower()} {operation.name or ''}".rstrip()
    return f"{head}  page {operation.page:#x}, {operation.count} pages"


def _to_json(journal: Journal, listed: list[Commit]) -> dict[str, object]:
    return {
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
        "kind": commit.kind.name.lower(),
        "state_sum": f"{commit.state_sum:016x}",
        "mark": commit.name,
    }


def _operation_to_json(operation: Operation, time_ns: int) -> dict[str, object]:
    values: dict[str, object] = {"lsn": operation.lsn, "time": time_ns, "kind": operation.kind.name.lower()}
    if operation.kind == Kind.RESIZE:
        values |= {"page": operation.page, "size": operation.count}
    elif operation.commit_kind:
        values |= {"commit": operation.commit_kind.name.lower(), "mark": operation.name}
    else:
        values |= {"page": operation.page, "count": operation.count}
    return values
